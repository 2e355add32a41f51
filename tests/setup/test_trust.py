# SPDX-License-Identifier: MIT
"""Which places only root can change."""

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

from storewarden.setup.files import SetupError, below, changeable, missing_directories

ROOT = sys.platform == "linux" and os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can make a place that is root's alone")


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
    assert changeable([f"{roots}/program"]) == "/tmp"  # noqa: S108 - likewise


def test_what_lies_in_tmp_is_not_roots_alone() -> None:
    assert changeable(["/tmp/x"]) == "/tmp"  # noqa: S108 - the point
