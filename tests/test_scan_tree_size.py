# SPDX-License-Identifier: MIT
"""The size of a tree that a builder chose: bounded, never followed, no descriptor left open."""

import os
from pathlib import Path

import pytest

from storewarden.scan import tree_size
from storewarden.store.entries import look


def size_of(directory: Path, name: str = "tree", limit: int = 20_000) -> tuple[int, bool]:
    """`tree_size` of that entry, having checked that it left no descriptor open."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        entry = look(fd, name)
        assert entry is not None
        before = os.listdir("/dev/fd")
        found = tree_size(fd, entry, limit)
        assert len(os.listdir("/dev/fd")) == len(before)
        return found
    finally:
        os.close(fd)


def _fill(top: Path) -> int:
    """A small tree with a link out of it; gives the bytes that its own parts take."""
    (top / "bin").mkdir(parents=True)
    (top / "log").write_text("x" * 10_000)
    (top / "bin" / "tool").write_text("y" * 5_000)
    (top / "out").symlink_to("/")
    parts = (top, top / "bin", top / "log", top / "bin" / "tool", top / "out")
    return sum(os.lstat(part).st_blocks * 512 for part in parts)


def test_it_is_what_all_parts_take_without_what_links_lead_to(tmp_path: Path) -> None:
    expected = _fill(tmp_path / "tree")
    assert size_of(tmp_path) == (expected, True)


def test_a_link_or_a_file_is_its_own_size(tmp_path: Path) -> None:
    (tmp_path / "tree").symlink_to("/usr")
    assert size_of(tmp_path) == (os.lstat(tmp_path / "tree").st_blocks * 512, True)
    (tmp_path / "file").write_text("x" * 5000)
    assert size_of(tmp_path, "file") == (os.lstat(tmp_path / "file").st_blocks * 512, True)


def test_it_stops_at_its_limit_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / "tree" / str(number)).touch()
    assert size_of(tmp_path, limit=20)[1] is False
    assert size_of(tmp_path, limit=51)[1] is True


def test_a_deep_tree_costs_neither_recursion_nor_descriptors(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("tree", dir_fd=fd)
        below = os.open("tree", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert size_of(tmp_path)[1] is True
    _flatten(tmp_path)


def test_a_wide_tree_is_counted_in_part_and_told_so(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
    size, complete = size_of(tmp_path)
    assert size >= os.lstat(tmp_path / "tree").st_blocks * 512
    assert complete is False


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_what_may_not_be_read_makes_it_incomplete(tmp_path: Path) -> None:
    _fill(tmp_path / "tree")
    (tmp_path / "tree" / "bin").chmod(0)
    try:
        assert size_of(tmp_path)[1] is False
    finally:
        (tmp_path / "tree" / "bin").chmod(0o700)


def _flatten(directory: Path) -> None:
    """Bring what is too deep for a path up, so that pytest can remove it."""
    while (directory / "tree" / "tree").exists():
        os.rename(directory / "tree" / "tree", directory / "next")
        os.rmdir(directory / "tree")
        os.rename(directory / "next", directory / "tree")
