# SPDX-License-Identifier: MIT
"""One file becomes what it should be, whole or not at all."""

import os
from pathlib import Path

import pytest

from storewarden.setup.files import File, Link, State, draft_of, put, state_of, take_away

PRECIOUS = "precious"


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
    assert state_of(item, top, ()) is State.RIGHT
    assert elsewhere(top).read_text() == PRECIOUS
    assert os.listdir(top) == ["file"]


def test_what_is_there_is_told_apart(top: str) -> None:
    old, new = File("/file", b"old"), File("/file", b"new")
    assert state_of(new, top, ()) is State.ABSENT
    put(old, top)
    assert state_of(old, top, ()) is State.RIGHT
    assert state_of(new, top, [old.digest()]) is State.OLDER
    assert state_of(new, top, ["something else"]) is State.OTHERS
    assert state_of(File("/file", b"new", once=True), top, ()) is State.RIGHT
    assert state_of(Link("/file", "x"), top, ()) is State.OTHERS
    assert state_of(File("/file/below", b""), top, ()) is State.ABSENT


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_others(make: object, top: str) -> None:
    assert callable(make)
    make(f"{top}/file")
    assert state_of(File("/file", b""), top, ()) is State.OTHERS


def test_a_link_with_a_file_behind_it_is_not_that_file(top: str) -> None:
    os.symlink(elsewhere(top), f"{top}/file")
    assert state_of(File("/file", PRECIOUS.encode()), top, ()) is State.OTHERS


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
