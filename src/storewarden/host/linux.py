# SPDX-License-Identifier: MIT
"""What only Linux can tell or do, read from `/proc` and asked by system call."""

import ctypes
import errno
import os
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

from storewarden.host.tables import Death, Flock, Mount, exclusive_holders

FIRST_ALLOCATED = 872415232
ALLOCATED = 65536 * 128
PER_SLOT = 65536
"""`start-id`, `id-count` and block size of auto-allocate-uids (libstore globals.hh, 2.34.6)."""

SOCKET = "/run/storewarden/helper.sock"
RUNTIME_DIR = "/run/storewarden/watch"
"""Where root alone makes names; the second is the watcher's, its unit makes it."""

_RENAME_NOREPLACE = 1
_CLONE_NEWNS = 0x20000
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_ALL_UIDS, _OVERFLOW_UID = 2**32 - 1, 65534
"""-1 is no uid; the other is what proc(5) says of /proc/sys/kernel/overflowuid."""
_ENDED = (FileNotFoundError, ProcessLookupError)
_SYSTEM_IDS = 4  # real, effective, saved and file system uid
_TRIES = 8
_POINT = 4  # the column of the mount point, proc(5)
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_TABLE = "/proc/self/mountinfo"
_READINGS, _LARGEST_PAGE = 3, 65536


def peer(connection: socket.socket) -> tuple[int, int | None]:
    """Uid and pid of who called connect() on the other side (SO_PEERCRED).

    A peer whose user namespace does not map here shows as 65534; a pid that this pid namespace
    cannot see as None.
    """
    size = struct.calcsize("iII")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, uid, _gid = struct.unpack("iII", credentials)
    return uid, pid or None


def others_write(directory: str, found: os.stat_result) -> bool:
    """Whether its mode lets others than root change that directory or file: no group is root's."""
    del directory
    return bool(found.st_mode & 0o022)


sync = getattr(os, "fdatasync", os.fsync)  # tests load this on macOS, which has only the latter
"""Have what was written to that file survive a power cut. `OSError` if that is not certain."""


def clear_flags(fd: int) -> bool:
    """Nothing: what keeps a file from being removed here (chattr +i) is for root to set."""
    del fd
    return False


def declared_by(sign: str = "/etc/NIXOS") -> str:
    """The system that makes this machine from what it declares (nixos/modules); empty if none."""
    return "NixOS" if os.path.exists(sign) else ""


def hidden_uid(table: str = "/proc/self/uid_map") -> int | None:
    """The uid that owners show as who have none in this user namespace; None where all have one."""
    try:
        with open(table, encoding="ascii") as file:
            mapped = sum(int(line.split()[2]) for line in file)
    except (OSError, ValueError, IndexError):
        mapped = 0  # cannot be told, so it may be so
    return None if mapped >= _ALL_UIDS else _OVERFLOW_UID


def processes_of(uids: Collection[int], proc: str = "/proc") -> list[int] | None:
    """Pids whose real, effective, saved or file system uid is in `uids`; None if some are hidden.

    A thread group whose leader has ended shows as a zombie while its other threads live on, so
    only a zombie with no thread left is dead.
    """

    def runs_as(process: str) -> bool:
        fields = dict(line.split(b":", 1) for line in _lines(f"{process}/status") if b":" in line)
        owners = {int(uid) for uid in fields[b"Uid"].split()[:_SYSTEM_IDS]}
        dead = fields[b"State"].strip().startswith((b"Z", b"X"))
        if not any(uid in uids for uid in owners):
            return False
        return not dead or len(os.listdir(f"{process}/task")) > 1

    return _processes(proc, runs_as)


def processes_inside(
    directory: str, objects: Collection[tuple[int, int]], proc: str = "/proc"
) -> list[int] | None:
    """Pids whose root or working directory is in `directory`; None if one cannot be seen.

    A sandboxed builder lives in a mount namespace of its own, where its root is called `/`; so
    device and inode of the directories that can be one are given as `objects` too.
    """

    def is_inside(process: str) -> bool:
        inside = False
        for thread in os.listdir(f"{process}/task"):
            for link in ("root", "cwd"):
                place = f"{process}/task/{thread}/{link}"
                with suppress(*_ENDED):  # it has ended, or is a zombie and has none
                    seen, name = os.stat(place), os.readlink(place)
                    inside |= name == directory or name.startswith(f"{directory}/")
                    inside |= (seen.st_dev, seen.st_ino) in objects
        return inside

    return _processes(proc, is_inside)


def _processes(proc: str, fits: Callable[[str], bool]) -> list[int] | None:
    """Pids of all that fit, by their directories; None where some cannot be seen."""
    found = []
    try:
        _check_visible(proc)
        for name in filter(str.isdigit, os.listdir(proc)):
            with suppress(*_ENDED):
                if fits(f"{proc}/{name}"):
                    found.append(int(name))
    except (OSError, KeyError, ValueError):
        return None
    return sorted(found)


def _check_visible(proc: str) -> None:
    """Raise `OSError` where some processes are hidden: they are alive, and yet not to be seen.

    With `hidepid`, or in a unit with ProtectProc, only members of a group see all, by default
    that of root; elsewhere pid 1 is what is hidden first.
    """
    os.stat(f"{proc}/1/status")
    options = [line for line in _lines(_TABLE) if _point(line) == proc][-1:]
    hidden = re.search(rb"[ ,]hidepid=(?!0|off)(\w+)", b"".join(options))
    # Where only those that one may trace are shown no group helps, and pid 1 may be one of them.
    spared = hidden and hidden[1] not in {b"4", b"ptraceable"}
    if hidden and not (spared and 0 in {os.getegid(), *os.getgroups()}):
        raise PermissionError("processes are hidden here")


def flocks(table: str = "/proc/locks") -> tuple[Flock, ...] | None:
    """Every flock that is to be seen from here, held or waited for; None if there is no table.

    Every user may read it. It leaves out what processes of other pid namespaces hold, so absence
    from it proves nothing.
    """
    try:
        return tuple(_flocks(table))
    except (OSError, ValueError, IndexError):
        return None


def _flocks(table: str) -> Iterator[Flock]:
    for fields in _readings(table):
        waits = fields[0] == b"->"
        kind, _advisory, mode, pid, place = fields[waits : waits + 5]
        if kind == b"FLOCK":
            device, _, inode = place.decode("ascii").rpartition(":")
            yield Flock(int(pid), int(inode), mode == b"WRITE", waits, device)


def _readings(table: str) -> Iterable[tuple[bytes, ...]]:
    """The fields of each line of a table of locks, without their numbers, each line once.

    The kernel gives a page at a time. Between two it counts on from the number it was at, so that
    one which is held all the time is left out if one before it is let go (fs/locks.c). So a table
    of several pages is read again, and what is in any of the readings counts.
    """
    seen: dict[tuple[bytes, ...], None] = {}
    with open(table, "rb", buffering=0) as file:
        for _ in range(_READINGS):
            file.seek(0)
            pages = [*iter(lambda: file.read(_LARGEST_PAGE), b"")]
            seen |= dict.fromkeys(tuple(line.split()[1:]) for line in b"".join(pages).splitlines())
            if len(pages) <= 1:
                break
    return seen


def death_of(pid: int) -> Death:
    """What turns readable when that process ends; whoever asks closes it (pidfd_open(2)).

    `ProcessLookupError` where it has ended. Any other `OSError`: this kernel, or a filter of its
    calls, does not tell (before Linux 5.3, gVisor). It needs no privilege, whosever it is.
    """
    if not hasattr(os, "pidfd_open"):  # made for an older C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return open(os.pidfd_open(pid), "rb", buffering=0)


def orphans(user_lock: str, pids: Collection[int]) -> list[int]:
    """The first of `pids` not seen to descend from the process that holds that lock file, if any.

    The first of all where it cannot be told. What was forked twice has lost its parent.
    """
    certain = False
    try:
        holder = _holder(user_lock) if pids else None
        related = set() if holder is None else {holder}
        left = next((pid for pid in pids if not _descends(pid, related)), None)
        # In a container all that has lost its parent is the child of process 1, the holder or not.
        certain = holder != 1 and (not pids or _holder(user_lock) == holder)
    except (OSError, ValueError, LookupError, StopIteration):
        left = None
    return [left] if left is not None else [] if certain else [*pids][:1]


def holds(pid: int, path: str) -> bool:
    """Whether that process is seen to hold the flock of that file exclusively."""
    try:
        return _holder(path) == pid
    except (OSError, ValueError, LookupError, StopIteration):
        return False


def _holder(path: str, table: str = "/proc/locks") -> int | None:
    """The pid that holds that file's flock exclusively; None where none is seen to.

    By inode and by the device of the mount: stat(2) gives another one on btrfs.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        inode = os.fstat(fd).st_ino
        about = _lines(f"/proc/self/fdinfo/{fd}")
        mount = next(line.split()[1] for line in about if line.startswith(b"mnt_id:"))
    finally:
        os.close(fd)
    device = next(at.split(b" ")[2] for at in _lines(_TABLE) if at.startswith(mount + b" "))
    major, minor = map(int, device.split(b":"))
    there = (lock for lock in _flocks(table) if lock.device == f"{major:02x}:{minor:02x}")
    return exclusive_holders(there).get(inode)


def _descends(pid: int, related: set[int]) -> bool:
    """Whether that process, if it has not ended, descends from one of `related`; which grows."""
    for _ in range(_TRIES):
        at, passed = pid, []
        try:
            while at > 1 and at not in related:
                passed.append(at)
                at = parent_of(at)
        except _ENDED:
            if at == pid:
                return True  # it has ended meanwhile, and claims nothing
            continue  # one between them has, and left its child to another
        if at in related:
            related.update(passed)
        return at in related
    raise LookupError(f"the ancestors of process {pid} change all the time")


def parent_of(pid: int) -> int:
    """The pid of its parent; `OSError` where it has ended."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # A process is called as it likes, with brackets too.
        return int(file.read().rpartition(b")")[2].split()[1])


def mounts(table: str = _TABLE) -> list[Mount] | None:
    """Every mount seen here, in the order they were made.

    None where a mount point cannot be told: it could be anywhere. The type of a mount whose line
    does not tell it is empty, which is of interest to what lies on that mount alone.
    """
    try:
        return [Mount(_point(line), _type(line)) for line in _lines(table)]
    except OSError:
        return None


def _lines(table: str) -> list[bytes]:
    """The lines of a file of `/proc`; users choose names in it, with any character in them.

    The kernel escapes the newline alone (`show_mountinfo`, `proc_task_name`), so that nothing else
    ends a line.
    """
    with open(table, "rb") as file:
        return [line for line in file.read().split(b"\n") if line]


def _point(line: bytes) -> str:
    """The mount point of a line of mountinfo; `OSError` where it has none."""
    fields = line.split(b" ")
    if len(fields) <= _POINT or not fields[_POINT].startswith(b"/"):
        raise OSError("a mount whose place cannot be told")
    return os.fsdecode(_ESCAPE.sub(lambda octal: bytes([int(octal[1], 8) & 0xFF]), fields[_POINT]))


def _type(line: bytes) -> str:
    return os.fsdecode(line.partition(b" - ")[2].split(b" ")[0])


def rename_exclusive(from_fd: int, name: str, to_fd: int, new_name: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE: `OSError`, and nothing changed, if `new_name` exists.

    A kernel or file system without it gives EINVAL or ENOSYS.
    """
    paths = os.fsencode(name), os.fsencode(new_name)
    _call("renameat2", from_fd, paths[0], to_fd, paths[1], _RENAME_NOREPLACE)


def make_writable(store_dir: str) -> None:
    """Make a read-only mounted store directory writable for this process alone, as Nix does.

    In a private mount namespace, so nobody else sees it; the mount's other flags are kept
    (local-store.cc `makeStoreWritable`, 2.34.6). Does nothing where it is writable. `OSError`
    without CAP_SYS_ADMIN.
    """
    flags = os.statvfs(store_dir).f_flag
    if not flags & os.ST_RDONLY:
        return
    kept = flags & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _MS_PRIVATE | _MS_REC, None)
    _call("mount", None, os.fsencode(store_dir), b"none", _MS_REMOUNT | _MS_BIND | kept, None)


def _call(name: str, *arguments: int | bytes | None) -> None:
    try:
        function = ctypes.CDLL(None, use_errno=True)[name]
    except AttributeError:  # an older C library
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    # mount(2) takes its flags as an unsigned long; the others take plain ints.
    flags = ctypes.c_ulong if name == "mount" else int
    if function(*(flags(a) if isinstance(a, int) else a for a in arguments)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
