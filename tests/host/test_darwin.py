# SPDX-License-Identifier: MIT
"""The logic of the macOS half that needs no Mac: what it makes of what the system would say."""

import ctypes
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stand_in import write_program
from storewarden.host import darwin

RECORDED = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s6 on /System/Volumes/VM (apfs, local, noexec, journaled, noatime, nobrowse)
/dev/disk3s7 on /nix (apfs, local, journaled, noatime, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@server/share on /Volumes/my share (1) (smbfs, nodev, nosuid, mounted by me)
tmpfs on /private/x (tmpfs)
"""


def xucred(version: int, uid: int) -> bytes:
    """A `struct xucred` as sys/ucred.h lays it out: 4 + 4 + 2 + 2 of padding + 16 gids."""
    return struct.pack("=IIhh16I", version, uid, 1, 0, *range(16))


@pytest.mark.parametrize("uid", [0, 501, 2**31, 2**32 - 2])
def test_the_peers_uid_is_read_from_its_credentials(uid: int) -> None:
    assert darwin.peer_uid(xucred(0, uid)) == uid


def test_credentials_of_another_version_or_size_are_refused() -> None:
    good = xucred(0, 501)
    assert len(good) == 76
    for bad in (xucred(1, 501), good[:-1], good + b"\0", b"", good[:8]):
        with pytest.raises(OSError, match="LOCAL_PEERCRED"):
            darwin.peer_uid(bad)


def test_mounts_are_read_from_what_the_program_prints() -> None:
    assert darwin.parse_mounts(RECORDED) == [
        ("/", "apfs"),
        ("/dev", "devfs"),
        ("/System/Volumes/VM", "apfs"),
        ("/nix", "apfs"),
        ("/System/Volumes/Data/home", "autofs"),
        ("/Volumes/my share (1)", "smbfs"),
        ("/private/x", "tmpfs"),
    ]


@pytest.mark.parametrize(
    "line", ["rubbish", "/dev/disk3s7 on /nix", "/dev/disk3s7 (apfs)", "a on /with\nnewline (apfs)"]
)
def test_a_line_that_is_not_understood_makes_all_mounts_unknown(line: str) -> None:
    assert darwin.parse_mounts(f"{RECORDED}{line}\n{RECORDED}") is None


def test_a_mount_program_that_fails_or_is_absent_is_unknown(tmp_path: Path) -> None:
    assert darwin.mounts(f"{tmp_path}/absent") is None
    assert darwin.mounts(write_program(f"{tmp_path}/fails", "exit 1\n")) is None
    works = write_program(f"{tmp_path}/works", "echo '/dev/disk3s7 on /nix (apfs, local)'\n")
    assert darwin.mounts(works) == [("/nix", "apfs")]


@dataclass(slots=True)
class Libproc:
    """A proc_listpids that keeps to Apple's Libc and kernel, over processes that are made up."""

    pids: dict[tuple[int, int], list[int]]
    """By kind (4: effective uid, 5: real uid) and uid."""
    fails_at: int = 0
    """Which of the calls fails, the first is 1."""
    fails_with: int = errno.EPERM
    asked: int = 0

    def __call__(
        self, kind: int, uid: int, buffer: "ctypes.Array[ctypes.c_int32] | None", size: int
    ) -> int:
        """As libproc.c: 0 on error, which errno tells apart from nobody."""
        self.asked += 1
        if self.asked == self.fails_at:
            ctypes.set_errno(self.fails_with)
            return 0
        if buffer is None:
            return 4 * (20 + sum(map(len, self.pids.values())))
        found = self.pids.get((kind, uid), [])[: size // 4]
        for place, pid in enumerate(found):
            buffer[place] = pid
        return 4 * len(found)


OWN = {(4, os.geteuid()): [os.getpid()]}


def test_processes_of_effective_and_real_uid_are_found_once_each() -> None:
    told = {(4, 301): [20, 10], (5, 301): [10, 30], (4, 302): [40], (5, 303): [50]}
    said = Libproc(OWN | told)
    assert darwin.processes_of([301], said) == [10, 20, 30]
    assert darwin.processes_of([301, 302], said) == [10, 20, 30, 40]
    assert darwin.processes_of([304], said) == []
    assert darwin.processes_of([], said) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM])
@pytest.mark.parametrize("call", range(1, 11))
def test_one_call_that_fails_makes_all_unknown(call: int, number: int) -> None:
    said = Libproc(OWN | {(4, 301): [10], (5, 301): [10]}, call, number)
    assert darwin.processes_of([301, 302], said) is None
    assert said.asked <= 10


def test_an_answer_that_leaves_out_this_process_makes_all_unknown() -> None:
    for own in ({}, {(4, os.geteuid()): [1]}, {(5, os.geteuid()): [os.getpid()]}):
        assert darwin.processes_of([301], Libproc(own)) is None


def test_more_processes_than_there_was_room_for_make_all_unknown() -> None:
    said = Libproc(OWN | {(4, 301): list(range(1, 100))})
    assert darwin.processes_of([301], said) == list(range(1, 100))

    def grown(kind: int, uid: int, buffer: "ctypes.Array[ctypes.c_int32] | None", size: int) -> int:
        return said(kind, uid, buffer, size) if buffer is not None or uid != 301 else 4 * 20

    assert darwin.processes_of([301], grown) is None


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has it")
def test_without_libproc_nothing_is_known() -> None:
    assert darwin.processes_of([301]) is None


@pytest.mark.parametrize(
    ("directory", "mode", "gid", "open_to_others"),
    [
        ("/Library", 0o775, 80, False),
        ("/nix", 0o775, 80, False),
        ("/nix", 0o775, 0, False),
        ("/", 0o1775, 80, False),
        ("/Library", 0o755, 80, False),
        ("/Library", 0o777, 80, True),
        ("/Library", 0o775, 20, True),
        ("/Library/LaunchDaemons", 0o775, 80, True),
        ("/private/var/run", 0o775, 1, True),
        ("/opt/storewarden", 0o775, 80, True),
        ("/usr/local/bin", 0o775, 80, True),
    ],
)
def test_what_admin_may_write_is_roots_only_where_root_runs_what_lies_there_already(
    directory: str, mode: int, gid: int, *, open_to_others: bool
) -> None:
    found = os.stat_result((0o40000 | mode, 1, 1, 2, 0, gid, 0, 0, 0, 0))
    assert darwin.others_write(directory, found) is open_to_others


def test_where_a_file_system_has_no_full_sync_the_ordinary_one_has_to_do(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        file.write(b"line")
        file.flush()
        darwin.sync(file.fileno())
        closed = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        darwin.sync(closed)
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing), pytest.raises(OSError, match="Invalid argument"):
        darwin.sync(writing)


def test_only_flags_that_an_owner_can_set_are_cleared(tmp_path: Path) -> None:
    uchg, uappnd, hidden, schg = 0x2, 0x4, 0x8000, 0x20000
    assert darwin.without_owners_flags(uchg | uappnd | hidden | schg) == hidden | schg
    assert darwin.without_owners_flags(schg) == schg
    with open(tmp_path / "plain", "wb") as file:
        assert not darwin.clear_flags(file.fileno())


def test_nix_darwin_is_known_by_what_it_makes(tmp_path: Path) -> None:
    assert darwin.declared_by(f"{tmp_path}/darwin-version") == ""
    Path(tmp_path, "darwin-version").touch()
    assert darwin.declared_by(f"{tmp_path}/darwin-version") == "nix-darwin"


def test_who_holds_a_lock_is_always_unknown() -> None:
    assert darwin.flocks() is None
    assert darwin.flocks("/proc/locks") is None


def test_a_writable_store_is_left_as_it_is(tmp_path: Path) -> None:
    darwin.make_writable(str(tmp_path))
    assert (darwin.FIRST_ALLOCATED, darwin.ALLOCATED, darwin.PER_SLOT) == (56930, 128, 1)


WORKER, LOCK_FD = 77, 9


@dataclass(frozen=True, slots=True)
class Told:
    """proc_pidinfo and proc_pidfdinfo of one process, laid out as sys/proc_info.h has it."""

    uid: int = 0
    parent: int = 1
    open: tuple[tuple[int, int, os.stat_result | None], ...] = ()
    """Descriptor, type, and of a file what it is; None for one that is closed by now."""

    def __call__(
        self, call: str, pid: int, order: tuple[int, int], buffer: "ctypes.Array[ctypes.c_char]"
    ) -> int:
        if pid != WORKER:
            return 0
        match call, order:
            case "proc_pidinfo", (3, 0):
                told = struct.pack("=6I", 0, 2, 0, pid, self.parent, self.uid).ljust(136, b"\0")
            case "proc_pidinfo", (1, 0):
                told = b"".join(struct.pack("=iI", fd, kind) for fd, kind, _ in self.open)
            case "proc_pidfdinfo", (fd, 1):
                found = next(seen for number, _, seen in self.open if number == fd)
                if found is None:
                    return 0
                stat = struct.pack("=IHHQ", found.st_dev, 0, 1, found.st_ino)
                told = (bytes(24) + stat).ljust(176, b"\0")
            case _:
                raise AssertionError(call, order)
        ctypes.memmove(buffer, told, len(told))
        return len(told)


def test_a_parent_is_told_by_libproc_or_not_at_all() -> None:
    assert darwin.parent_of(WORKER, Told(parent=5)) == 5
    with pytest.raises(OSError, match="does not tell"):
        darwin.parent_of(78, Told())


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A lock file whose flock somebody holds."""
    place = tmp_path / "x.drv.out.lock"
    with place.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield place


def test_a_lock_that_is_held_and_open_in_roots_process_is_its(locked: Path) -> None:
    found = (LOCK_FD, 1, locked.stat())
    closed, pipe = (7, 1, None), (8, 6, None)
    assert darwin.holds(WORKER, str(locked), Told(open=(closed, pipe, found)))


def test_any_doubt_of_who_holds_a_lock_is_a_no(locked: Path, tmp_path: Path) -> None:
    other, free = tmp_path / "other", tmp_path / "free"
    for place in (other, free):
        place.touch()
    ours = (LOCK_FD, 1, locked.stat())
    assert not darwin.holds(WORKER, str(locked), Told(uid=501, open=(ours,)))
    assert not darwin.holds(WORKER, str(locked), Told(open=((LOCK_FD, 1, other.stat()),)))
    assert not darwin.holds(WORKER, str(locked), Told(open=((LOCK_FD, 2, locked.stat()),)))
    assert not darwin.holds(WORKER, str(locked), Told())
    assert not darwin.holds(78, str(locked), Told(open=(ours,)))
    assert not darwin.holds(WORKER, str(free), Told(open=((LOCK_FD, 1, free.stat()),)))
    assert not darwin.holds(WORKER, f"{tmp_path}/gone", Told(open=(ours,)))


def test_more_open_files_than_there_was_room_for_are_a_no(locked: Path) -> None:
    many = tuple((100 + number, 2, None) for number in range((1 << 16) // 8 - 1))
    assert darwin.holds(WORKER, str(locked), Told(open=(*many[1:], (LOCK_FD, 1, locked.stat()))))
    assert not darwin.holds(WORKER, str(locked), Told(open=(*many, (LOCK_FD, 1, locked.stat()))))
