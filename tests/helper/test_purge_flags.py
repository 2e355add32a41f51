# SPDX-License-Identifier: MIT
"""Files with flags that keep them from going, as `chflags uchg` sets them on macOS.

Linux's own flag (chattr +i) does the same, but is for root to set, so nothing clears it there. Here
it stands for the other: all is real but for who may set it.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from helper.child import beside, needs_root
from helper.trees import descriptors, left_private, take_and_purge, taken, write
from storewarden.helper.purge import Purged, purge
from storewarden.throwaway import ThrowawayStore

NAME = f"{'0' * 32}-a"
_GET, _SET, _IMMUTABLE = 0x80086601, 0x40086602, 0x10  # linux/fs.h: FS_IOC_*FLAGS, FS_IMMUTABLE_FL


def flags_of(fd: int) -> int:
    found: int = struct.unpack("i", fcntl.ioctl(fd, _GET, bytes(4)))[0]
    return found


def clear(fd: int) -> bool:
    """As host/darwin.py does with its own flags."""
    flags = flags_of(fd)
    if flags & _IMMUTABLE:
        fcntl.ioctl(fd, _SET, struct.pack("i", flags & ~_IMMUTABLE))
    return bool(flags & _IMMUTABLE)


def is_immutable(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return bool(flags_of(fd) & _IMMUTABLE)
    finally:
        os.close(fd)


@pytest.fixture
def immutable(place: ThrowawayStore) -> Iterator[Callable[[str], None]]:
    """Makes a file or directory one that nobody can remove; it is cleared again at the end."""
    del place  # which is removed after this one's end
    made: list[int] = []

    def make(path: str) -> None:
        fd = os.open(path, os.O_RDONLY)
        made.append(fd)
        try:
            fcntl.ioctl(fd, _SET, struct.pack("i", flags_of(fd) | _IMMUTABLE))
        except OSError as cause:
            pytest.skip(f"this file system has no such flag: {cause}")

    yield make
    for fd in made:
        clear(fd)
        os.close(fd)


def take_and_purge_clearing(place: ThrowawayStore) -> Purged:
    with taken(place, NAME) as private:
        return purge(private, Purged(clear_flags=clear))


@needs_root
def test_a_file_and_a_directory_with_flags_of_their_owners_go(
    place: ThrowawayStore, immutable: Callable[[str], None]
) -> None:
    top = place.path(NAME)
    os.makedirs(f"{top}/open/deep")
    os.makedirs(f"{top}/flagged/deep/deeper")
    for path in ("file", "open/file", "open/deep/file", "flagged/file", "flagged/deep/deeper/file"):
        write(f"{top}/{path}")
    for path in ("open/file", "flagged", "flagged/deep/deeper/file", "flagged/deep/deeper"):
        immutable(f"{top}/{path}")
    before = descriptors()
    purged = take_and_purge_clearing(place)
    assert (purged.failures, purged.files, purged.directories) == (0, 5, 6), purged.reason
    assert descriptors() == before
    assert not left_private(place)


def take_and_purge_with_late_flags(
    place: ThrowawayStore, immutable: Callable[[str], None]
) -> Purged:
    """As somebody sets flags on the directory that is being emptied: it was moved up without."""
    with taken(place, NAME) as private:

        def set_flags() -> None:
            for name in os.listdir(private.fd):
                immutable(place.path(f"{private.name}/{name}"))

        with beside([set_flags], "unlink", before=True):
            return purge(private, Purged(clear_flags=clear))


def _socket(path: str) -> None:
    short = f"{path.partition('/nix/')[0]}/s"  # the whole is too long for one
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(short)
    os.rename(short, path)


@needs_root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, _socket])
def test_what_cannot_be_opened_goes_and_is_not_waited_for(
    make: Callable[[str], None], place: ThrowawayStore, immutable: Callable[[str], None]
) -> None:
    os.mkdir(place.path(NAME))
    make(f"{place.path(NAME)}/odd")
    purged = take_and_purge_with_late_flags(place, immutable)
    assert (purged.failures, purged.files, purged.directories) == (0, 1, 1), purged.reason
    assert not left_private(place)


@needs_root
def test_a_file_that_is_elsewhere_too_keeps_its_flags_and_stays(
    place: ThrowawayStore, immutable: Callable[[str], None], tmp_path: Path
) -> None:
    """Its inode may be one of a valid path's, through the links directory."""
    top, elsewhere = place.path(NAME), str(tmp_path / "shared")
    os.mkdir(top)
    for path in ("file", "shared"):
        write(f"{top}/{path}")
    os.link(f"{top}/shared", elsewhere)
    immutable(elsewhere)
    purged = take_and_purge_clearing(place)
    assert (purged.failures, purged.files) == (2, 1), "it, and the directory that it is in"
    assert is_immutable(elsewhere)
    assert left_private(place)


@needs_root
def test_what_a_link_points_to_keeps_its_flags(
    place: ThrowawayStore, immutable: Callable[[str], None], tmp_path: Path
) -> None:
    top, elsewhere = place.path(NAME), tmp_path / "wanted"
    elsewhere.mkdir()
    write(f"{elsewhere}/file")
    os.mkdir(top)
    os.symlink(f"{elsewhere}/file", f"{top}/link")
    os.symlink(f"{elsewhere}", f"{top}/directory")
    immutable(f"{elsewhere}/file")
    immutable(str(elsewhere))
    os.mkdir(f"{top}/flagged")
    os.symlink(f"{elsewhere}/file", f"{top}/flagged/link")
    immutable(f"{top}/flagged")
    purged = take_and_purge_clearing(place)
    assert purged.failures == 0, purged.reason
    assert is_immutable(f"{elsewhere}/file")
    assert is_immutable(str(elsewhere))


@needs_root
def test_what_a_link_points_to_keeps_its_flags_where_the_link_could_not_go_at_first(
    place: ThrowawayStore, immutable: Callable[[str], None], tmp_path: Path
) -> None:
    write(f"{tmp_path}/wanted")
    immutable(f"{tmp_path}/wanted")
    os.mkdir(place.path(NAME))
    os.symlink(f"{tmp_path}/wanted", f"{place.path(NAME)}/link")
    purged = take_and_purge_with_late_flags(place, immutable)
    assert (purged.failures, purged.files) == (0, 1), purged.reason
    assert is_immutable(f"{tmp_path}/wanted")


@needs_root
def test_on_linux_only_root_can_have_set_it_so_it_stays(
    place: ThrowawayStore, immutable: Callable[[str], None]
) -> None:
    top = place.path(NAME)
    os.mkdir(top)
    write(f"{top}/file")
    immutable(f"{top}/file")
    purged = take_and_purge(place, NAME)
    assert purged.failures
    assert purged.reason
    assert left_private(place)


@needs_root
def test_where_it_stays_and_somebody_goes_on_writing_it_is_given_up_in_the_end(
    place: ThrowawayStore, immutable: Callable[[str], None]
) -> None:
    os.mkdir(place.path(NAME))
    write(f"{place.path(NAME)}/file")
    immutable(f"{place.path(NAME)}/file")
    with taken(place, NAME) as private:
        new = (partial(write, place.path(f"{private.name}/{number}")) for number in count())
        with beside(new, "scandir", before=True):
            purged = purge(private, Purged())
        assert (purged.failures, purged.late) == (2, False)
        assert 8 <= purged.files <= 16 + 2, "so often at most it is tried again"
