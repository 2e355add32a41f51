# SPDX-License-Identifier: MIT
"""What Linux says of locks, mounts, peers and renames, asked of the real system."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from helper.child import among_own_processes, in_child, mount, needs_root, take_own_mounts
from storewarden import host
from storewarden.host import darwin, linux, listener
from storewarden.host.linux import flocks, hidden_uid
from storewarden.host.tables import Flock, exclusive_holders
from sweeps import holding, needs_lock_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is asked")

LOCKS = """\
1: POSIX  ADVISORY  WRITE 100 08:01:11 0 EOF
2: FLOCK  ADVISORY  WRITE 200 08:01:22 0 EOF
2: -> FLOCK  ADVISORY  WRITE 201 08:01:23 0 EOF
3: FLOCK  ADVISORY  READ 300 08:01:33 0 EOF
4: OFDLCK ADVISORY  WRITE -1 08:01:44 0 EOF
5: LEASE  ACTIVE    WRITE 500 08:01:55 0 EOF
6: FLOCK  ADVISORY  WRITE 600 00:2f:18446744073709551615 0 EOF
7: FLOCK  ADVISORY  WRITE 0 fe:00:77 0 EOF
"""
MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /nix/store ro,nosuid shared:9 master:3 - overlay overlay rw,lowerdir=/a
31 22 0:27 / /mnt/a\\040b\\011c\\134d rw - tmpfs none rw
32 22 0:28 / /mnt/\udce4 rw - 9p share rw
"""


def test_the_same_names_are_there_on_both_systems() -> None:
    assert host.processes_of is linux.processes_of
    own = {
        n for n, what in vars(linux).items() if getattr(what, "__module__", "") == linux.__name__
    }
    needed = {n for n in own if not n.startswith("_")} | {
        "FIRST_ALLOCATED",
        "ALLOCATED",
        "PER_SLOT",
    }
    assert needed <= set(vars(host))
    assert needed <= set(vars(darwin))


def test_who_holds_a_flock_is_read_from_the_table(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text(LOCKS)
    found = linux.flocks(f"{tmp_path}/locks")
    assert found is not None
    assert exclusive_holders(found) == {22: 200, 2**64 - 1: 600, 77: 0}


@pytest.mark.parametrize(
    "text", ["1: FLOCK  ADVISORY  WRITE x 08:01:22 0 EOF\n", "\xff\n", "rubbish\n"]
)
def test_a_table_that_is_not_understood_is_unknown(tmp_path: Path, text: str) -> None:
    (tmp_path / "locks").write_text(text, encoding="latin-1")
    assert linux.flocks(f"{tmp_path}/locks") is None
    assert linux.flocks(f"{tmp_path}/absent") is None


def test_a_flock_of_another_process_is_seen_and_a_shared_one_is_not(tmp_path: Path) -> None:
    program = """
import fcntl, sys
files = [open(name, "w") for name in sys.argv[1:]]
fcntl.flock(files[0], fcntl.LOCK_EX)
fcntl.flock(files[1], fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.read()
"""
    paths = [f"{tmp_path}/own", f"{tmp_path}/shared"]
    command = [sys.executable, "-c", program, *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        table = linux.flocks()
        inodes = [os.stat(path).st_ino for path in paths]
    assert table is not None
    seen = exclusive_holders(table)
    assert [seen.get(inode) for inode in inodes] == [other.pid, None]


def test_mounts_are_read_with_their_escapes(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS, errors="surrogateescape")
    assert linux.mounts(f"{tmp_path}/mountinfo") == [
        ("/", "ext4"),
        ("/nix/store", "overlay"),
        ("/mnt/a b\tc\\d", "tmpfs"),
        ("/mnt/\udce4", "9p"),
    ]


@pytest.mark.parametrize("line", ["rubbish", "33 22 0:29 /", "33 22 0:29 / here rw - ext4 x rw"])
def test_mounts_that_cannot_be_read_are_unknown(line: str, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(f"{MOUNTS}{line}\n", errors="surrogateescape")
    assert linux.mounts(f"{tmp_path}/mountinfo") is None
    assert linux.mounts(f"{tmp_path}/absent") is None


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"])
def test_only_a_newline_ends_a_line_of_mounts(end: str, tmp_path: Path) -> None:
    line = f"33 22 0:29 / /mnt/{end} - nfs rw - fuse {end} rw\n"
    (tmp_path / "mountinfo").write_bytes(os.fsencode(MOUNTS) + line.encode())
    seen = linux.mounts(f"{tmp_path}/mountinfo")
    assert seen is not None
    assert [os.fsencode(point) for point, _ in seen][4:] == [f"/mnt/{end}".encode()]


def test_a_mount_of_which_only_the_place_is_told_is_of_no_type(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        f"{MOUNTS}33 22 0:29 / /mnt/x rw\n", errors="surrogateescape"
    )
    seen = linux.mounts(f"{tmp_path}/mountinfo")
    assert seen is not None
    assert seen[4:] == [("/mnt/x", "")]
    assert host.unfit("/mnt/x/store", seen)
    assert not host.unfit("/nix", seen)


def test_the_real_mounts_have_a_root() -> None:
    seen = linux.mounts()
    assert seen is not None
    assert "/" in [point for point, _ in seen]


def test_the_peer_of_a_connection_is_who_connected(tmp_path: Path) -> None:
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/socket")
        listener.listen()
        with subprocess.Popen([sys.executable, "-c", program, f"{tmp_path}/socket"]) as other:
            connection, _ = listener.accept()
            with connection:
                assert linux.peer(connection) == (os.geteuid(), other.pid)


def test_a_rename_never_replaces_what_is_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    (tmp_path / "directory").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for taken in ("two", "directory"):
            with pytest.raises(FileExistsError):
                linux.rename_exclusive(fd, "one", fd, taken)
        with pytest.raises(FileNotFoundError):
            linux.rename_exclusive(fd, "absent", fd, "new")
        linux.rename_exclusive(fd, "one", fd, "new\udcff")
    finally:
        os.close(fd)
    assert {os.fsencode(name) for name in os.listdir(tmp_path)} == {
        b"new\xff",
        b"two",
        b"directory",
    }
    assert (tmp_path / "two").read_text() == "two"


def test_an_error_of_the_system_has_its_number(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    os.close(fd)
    with pytest.raises(OSError, match="descriptor") as caught:
        linux.rename_exclusive(fd, "a", fd, "b")
    assert caught.value.errno == errno.EBADF


def test_a_writable_store_stays_in_its_namespace(tmp_path: Path) -> None:
    before = os.readlink("/proc/self/ns/mnt")
    linux.make_writable(str(tmp_path))
    assert os.readlink("/proc/self/ns/mnt") == before


@needs_root
def test_a_read_only_store_is_made_writable_for_this_process_alone_and_else_left_as_it_was(
    tmp_path: Path,
) -> None:
    def is_writable() -> bool:
        with suppress(OSError):
            (tmp_path / "file").touch()
            return True
        return False

    def make_writable() -> list[bool]:
        linux.make_writable(str(tmp_path))
        flags = os.statvfs(tmp_path).f_flag
        return [is_writable(), *(bool(flags & one) for one in (os.ST_NOSUID, os.ST_NOEXEC))]

    def beside_it() -> list[object]:
        take_own_mounts()
        mount("--bind", str(tmp_path), str(tmp_path))
        mount("-o", "remount,bind,ro,nosuid,noexec", str(tmp_path))
        return [is_writable(), in_child(make_writable), is_writable()]

    assert in_child(beside_it) == [False, [True, True, True], False]


def test_nixos_is_known_by_its_sign(tmp_path: Path) -> None:
    assert linux.declared_by(f"{tmp_path}/NIXOS") == ""
    Path(tmp_path, "NIXOS").touch()
    assert linux.declared_by(f"{tmp_path}/NIXOS") == "NixOS"


# The kernel's table of locks: who holds a flock, and who waits for it.


TABLE = """\
1: FLOCK  ADVISORY  WRITE 101 00:2d:11 0 EOF
1: -> FLOCK  ADVISORY  WRITE 102 00:2d:11 0 EOF
2: FLOCK  ADVISORY  READ 103 00:2d:12 0 EOF
3: POSIX  ADVISORY  WRITE 104 00:2d:13 128 128
4: OFDLCK ADVISORY  WRITE -1 00:2d:14 0 EOF
5: LEASE  ACTIVE    READ  105 00:2d:15 0 EOF
"""
_WAIT = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print("trying", flush=True)
fcntl.flock(fd, fcntl.LOCK_EX)
"""


def test_only_flocks_are_read_held_ones_and_awaited_ones(tmp_path: Path) -> None:
    table = tmp_path / "locks"
    table.write_text(TABLE)
    seen = flocks(str(table))
    assert seen == (
        Flock(101, 11, exclusive=True, waits=False),
        Flock(102, 11, exclusive=True, waits=True),
        Flock(103, 12, exclusive=False, waits=False),
    )
    assert exclusive_holders(seen) == {11: 101}


@pytest.mark.parametrize("text", ["1: FLOCK", "1: FLOCK A WRITE x 00:2d:1 0 EOF", "\n", "\xff"])
def test_a_table_that_does_not_read_is_none_at_all(tmp_path: Path, text: str) -> None:
    table = tmp_path / "locks"
    table.write_text(text, encoding="latin-1")
    assert flocks(str(table)) is None


def test_no_table_is_unknown_and_an_empty_one_is_not(tmp_path: Path) -> None:
    assert flocks(f"{tmp_path}/none") is None
    (tmp_path / "locks").touch()
    assert flocks(f"{tmp_path}/locks") == ()


@needs_lock_table
def test_a_real_holder_and_one_who_waits_in_the_kernel_are_told_apart(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    with holding(path) as holder:
        inode = os.stat(path).st_ino
        command = [sys.executable, "-I", "-S", "-c", _WAIT, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == b"trying\n"
            end = time.monotonic() + 10
            seen: set[Flock] = set()
            while len(seen) < 2 and time.monotonic() < end:
                seen = {lock for lock in flocks() or () if lock.inode == inode}
            waiter.kill()
    assert seen == {
        Flock(holder, inode, exclusive=True, waits=False),
        Flock(waiter.pid, inode, exclusive=True, waits=True),
    }


_COME_AND_GO = """
import fcntl, sys, time
files = [open(name, "w") for name in sys.argv[1:]]
print("begun", flush=True)
while True:
    for how in (fcntl.LOCK_EX, fcntl.LOCK_UN):
        for file in files:
            fcntl.flock(file, how)
            time.sleep(0.0001)
"""


@needs_lock_table
@pytest.mark.parametrize("held", [20, 120])
def test_what_is_held_is_seen_while_other_locks_come_and_go(tmp_path: Path, held: int) -> None:
    names = [f"{tmp_path}/{number}" for number in range(held)]
    others = [f"{tmp_path}/other-{number}" for number in range(20)]
    command = [sys.executable, "-I", "-S", "-c", _COME_AND_GO, *others]
    with ExitStack() as stack, subprocess.Popen(command, stdout=subprocess.PIPE) as busy:
        files = [stack.enter_context(open(name, "w", encoding="ascii")) for name in names]
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX)
        inodes = {os.fstat(file.fileno()).st_ino for file in files}
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"begun\n"
        looks = 300
        seen = [inodes & {lock.inode for lock in flocks() or ()} for _ in range(looks)]
        busy.kill()
    missed = sum(map(len, (inodes - one for one in seen)))
    # Of a page none; of several 1 in 10,000, where one reading leaves out 1 in 100.
    assert missed * 1000 < looks * held


# What owners show as where a user namespace does not know them, and who listens at a socket.


@pytest.mark.parametrize(
    ("table", "uid"),
    [
        ("         0          0 4294967295\n", None),
        ("0 100000 65536\n", 65534),
        ("1000 1000 1\n", 65534),
        ("", 65534),
        ("nonsense\n", 65534),
    ],
)
def test_owners_are_hidden_unless_every_uid_has_a_name(
    tmp_path: Path, table: str, uid: int | None
) -> None:
    (tmp_path / "uid_map").write_text(table, encoding="ascii")
    assert hidden_uid(f"{tmp_path}/uid_map") == uid


def test_where_the_table_cannot_be_read_owners_may_be_hidden(tmp_path: Path) -> None:
    assert hidden_uid(f"{tmp_path}/absent") == 65534


def test_who_listens_is_told_and_nobody_is_nobody(tmp_path: Path) -> None:
    place = f"{tmp_path}/socket"
    assert listener(place) is None
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(place)
        daemon.listen()
        assert listener(place) == (os.geteuid(), os.getpid())
    assert listener(place) is None


@needs_root
def test_who_listens_outside_this_pid_namespace_has_no_pid(tmp_path: Path) -> None:
    place = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(place)
        daemon.listen()
        assert among_own_processes(lambda: listener(place)) == [os.geteuid(), None]
