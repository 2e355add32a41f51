# SPDX-License-Identifier: MIT
"""A file becomes what it should be, whole or not at all; and which places only root can change."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from storewarden.setup.files import (
    File,
    Link,
    SetupError,
    State,
    below,
    changeable,
    draft_of,
    missing_directories,
    put,
    state_at,
    take_away,
)

PRECIOUS = "precious"
ROOT = sys.platform == "linux" and os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can make a place that is root's alone")


@pytest.fixture
def top(tmp_path: Path) -> str:
    tmp_path.chmod(0o755)
    (tmp_path / "elsewhere").write_text(PRECIOUS)
    place = tmp_path / "top"
    place.mkdir(mode=0o755)
    return str(place)


def elsewhere(top: str) -> Path:
    return Path(top).parent / "elsewhere"


def test_a_file_is_written_with_its_mode_whatever_the_umask(top: str) -> None:
    before = os.umask(0o077)
    try:
        put(File("/a/b/file", b"text", 0o755), top)
    finally:
        os.umask(before)
    assert Path(f"{top}/a/b/file").read_bytes() == b"text"
    assert os.stat(f"{top}/a/b/file").st_mode & 0o777 == 0o755
    assert os.stat(f"{top}/a").st_mode & 0o777 == 0o755
    assert os.listdir(f"{top}/a/b") == ["file"]


@pytest.mark.parametrize("item", [File("/file", b"new"), Link("/file", "target")])
def test_a_link_in_its_place_is_replaced_and_not_followed(item: File | Link, top: str) -> None:
    os.symlink(elsewhere(top), f"{top}/file")
    os.symlink(elsewhere(top), draft_of(f"{top}/file"))
    put(item, top)
    assert state_at(item, top, ()) is State.RIGHT
    assert elsewhere(top).read_text() == PRECIOUS
    assert os.listdir(top) == ["file"]


def test_what_is_there_is_told_apart(top: str) -> None:
    old, new = File("/file", b"old"), File("/file", b"new")
    assert state_at(new, top, ()) is State.ABSENT
    put(old, top)
    assert state_at(old, top, ()) is State.RIGHT
    assert state_at(new, top, [old.digest()]) is State.OLDER
    assert state_at(new, top, ["something else"]) is State.OTHERS
    assert state_at(File("/file", b"new", once=True), top, ()) is State.RIGHT
    assert state_at(Link("/file", "x"), top, ()) is State.OTHERS
    assert state_at(File("/file/below", b""), top, ()) is State.ABSENT


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_others(make: object, top: str) -> None:
    assert callable(make)
    make(f"{top}/file")
    assert state_at(File("/file", b""), top, ()) is State.OTHERS


def test_a_link_with_a_file_behind_it_is_not_that_file(top: str) -> None:
    os.symlink(elsewhere(top), f"{top}/file")
    assert state_at(File("/file", PRECIOUS.encode()), top, ()) is State.OTHERS


def test_with_a_module_goes_what_python_made_of_it_and_nothing_else(top: str) -> None:
    put(File("/package/one.py", b""), top)
    cache = Path(top, "package/__pycache__")
    cache.mkdir()
    for name in ("one.cpython-311.pyc", "one.cpython-313.opt-1.pyc", "onemore.cpython-311.pyc"):
        (cache / name).touch()
    take_away("/package/one.py", top)
    assert os.listdir(cache) == ["onemore.cpython-311.pyc"]
    (cache / "onemore.cpython-311.pyc").unlink()
    take_away("/package/one.py", top)
    assert os.listdir(f"{top}/package") == []


def test_a_link_is_taken_away_and_not_what_it_points_to(top: str) -> None:
    os.symlink(elsewhere(top), f"{top}/file")
    take_away("/file", top)
    take_away("/file", top)
    take_away("/absent/below", top)
    assert os.listdir(top) == []
    assert elsewhere(top).read_text() == PRECIOUS


@pytest.fixture
def roots() -> Iterator[str]:
    """A directory of root's, below directories of root's: not in /tmp."""
    with tempfile.TemporaryDirectory(prefix="storewarden-", dir="/run") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - as the directories of the system
        yield os.path.realpath(directory)


@only_root
def test_what_is_missing_is_told_from_the_outside_in(roots: str) -> None:
    assert missing_directories(f"{roots}/a/b/c") == (f"{roots}/a", f"{roots}/a/b", f"{roots}/a/b/c")
    os.makedirs(f"{roots}/a/b")
    assert missing_directories(f"{roots}/a/b/c") == (f"{roots}/a/b/c",)
    assert missing_directories(f"{roots}/a/b") == ()


@only_root
def test_links_of_roots_are_followed_to_where_they_lead(roots: str) -> None:
    os.makedirs(f"{roots}/real/deep")
    os.symlink(f"{roots}/real", f"{roots}/absolute")
    os.symlink("../real/./deep", f"{roots}/real/relative")
    assert missing_directories(f"{roots}/absolute/x") == (f"{roots}/real/x",)
    assert missing_directories(f"{roots}/absolute/relative/x") == (f"{roots}/real/deep/x",)


@only_root
def test_a_link_into_a_place_of_others_is_refused(roots: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as loose:
        os.symlink(loose, f"{roots}/link")
        with pytest.raises(SetupError, match="nothing is written below /tmp"):
            missing_directories(f"{roots}/link/x")


@only_root
def test_a_link_to_itself_ends(roots: str) -> None:
    os.symlink(f"{roots}/loop", f"{roots}/loop")
    with pytest.raises(SetupError, match="symbolic link"):
        missing_directories(f"{roots}/loop/x")


@only_root
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_directory_that_others_can_write_is_refused(mode: int, roots: str) -> None:
    os.mkdir(f"{roots}/loose")
    os.chmod(f"{roots}/loose", mode)
    with pytest.raises(SetupError, match="others than root can change it"):
        missing_directories(f"{roots}/loose/x")
    assert changeable([f"{roots}/loose/file"]) == f"{roots}/loose"


@only_root
def test_a_directory_of_another_user_is_refused(roots: str) -> None:
    os.mkdir(f"{roots}/theirs", 0o755)
    os.chown(f"{roots}/theirs", 65534, -1)
    with pytest.raises(SetupError, match="owner uid 65534"):
        missing_directories(f"{roots}/theirs/x")
    assert changeable([f"{roots}/theirs/file"]) == f"{roots}/theirs"


@only_root
def test_a_file_in_the_way_is_refused(roots: str) -> None:
    with open(f"{roots}/file", "w", encoding="ascii"):
        pass
    with pytest.raises(SetupError, match="it is not a directory"):
        missing_directories(f"{roots}/file/x")


@only_root
def test_what_is_roots_alone_is_told_from_what_is_not(roots: str) -> None:
    os.makedirs(f"{roots}/bin")
    for name in ("good", "loose", "theirs"):
        with open(f"{roots}/bin/{name}", "w", encoding="ascii"):
            pass
    assert changeable([*below(f"{roots}/bin"), f"{roots}/bin/absent"]) is None
    os.chmod(f"{roots}/bin/loose", 0o666)  # noqa: S103 - the point of the test
    assert changeable(below(f"{roots}/bin")) == f"{roots}/bin/loose"
    os.chmod(f"{roots}/bin/loose", 0o644)
    os.chown(f"{roots}/bin/theirs", 65534, -1)
    assert changeable(below(f"{roots}/bin")) == f"{roots}/bin/theirs"


@only_root
def test_a_link_of_roots_counts_as_what_it_points_to(roots: str) -> None:
    os.symlink("/tmp/program", f"{roots}/program")  # noqa: S108 - the point
    assert changeable([f"{roots}/program"]) == os.path.realpath("/tmp")  # noqa: S108 - likewise


def test_what_lies_in_tmp_is_not_roots_alone() -> None:
    assert changeable(["/tmp/x"]) == os.path.realpath("/tmp")  # noqa: S108 - the point
