# SPDX-License-Identifier: MIT
"""What only macOS can tell or do. Kept tiny: no Mac has run it yet (docs/macos.md)."""

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress

from storewarden.host.tables import Death, Flock, Mount

FIRST_ALLOCATED = 56930
ALLOCATED = 128
PER_SLOT = 1
"""`start-id`, `id-count` and block size of auto-allocate-uids (libstore globals.hh, 2.34.6)."""

SOCKET = "/private/var/db/storewarden/helper.sock"
RUNTIME_DIR = "/private/var/db/storewarden/watch"
"""Where root alone makes names: /private/var/run is root:daemon 0775.

The second is for a watcher that is root; setup names a place of the person's for any other.
"""
AS_ROOT_ALREADY = ("/", "/Library", "/nix")
_MAY_BE_ROOT = frozenset({0, 80})  # wheel; admin, of whom sudoers says: ALL = (ALL) ALL
_UF_IMMUTABLE, _UF_APPEND = 2, 4  # sys/stat.h: flags that a file's owner may set and clear
_F_FULLFSYNC = 51  # sys/fcntl.h
_NO_FULLFSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY}

_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_LOCAL_PEERPID = 2
_XUCRED = "=IIh2x16I"
_UID_ONLY, _RUID_ONLY = 4, 5  # sys/proc_info.h: PROC_UID_ONLY, PROC_RUID_ONLY
_RENAME_EXCL = 4
_OPEN_FILES = "proc_pidinfo", 1, 1 << 16  # PROC_PIDLISTFDS, and room for so many bytes
_BSD_INFO = "proc_pidinfo", 3, 136  # PROC_PIDTBSDINFO, and its size
_VNODE_INFO = "proc_pidfdinfo", 1, 176  # PROC_PIDFDVNODEINFO, and its size
_VNODE, _STAT_AT = 1, 24  # PROX_FDTYPE_VNODE; where the stat begins in a vnode_fdinfo

ListPids = Callable[[int, int, "ctypes.Array[ctypes.c_int32] | None", int], int]
"""proc_listpids(3): type, its argument, buffer, its size; gives how much of it was filled."""
AskOf = Callable[[str, int, tuple[int, int], "ctypes.Array[ctypes.c_char]"], int]
"""proc_pidinfo(3), proc_pidfdinfo(3): which, pid, its two numbers, buffer; gives the same."""


def peer(connection: socket.socket) -> tuple[int, int | None]:
    """Uid and pid of who called connect() on the other side (LOCAL_PEERCRED, LOCAL_PEERPID)."""
    size = struct.calcsize(_XUCRED)
    uid = peer_uid(connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, size))
    (pid,) = struct.unpack("=i", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
    return uid, pid or None


def peer_uid(xucred: bytes) -> int:
    """The uid in a `struct xucred`; `OSError` where its version or size is not the known one."""
    if len(xucred) != struct.calcsize(_XUCRED):
        raise OSError("LOCAL_PEERCRED gave a structure of another size")
    version, uid, *_ = struct.unpack(_XUCRED, xucred)
    if version != 0:
        raise OSError("LOCAL_PEERCRED gave a structure of another version")
    return int(uid)


def others_write(directory: str, found: os.stat_result) -> bool:
    """Whether its mode lets others than root change that directory or file.

    A member of `admin` may become root, and some installations have these directories 0775. What
    root runs already lies below them (jobs of launchd, nix-daemon), so whoever can rename there
    needs nothing of ours (docs/decisions.md, "Setup"). Elsewhere no group is root's.
    """
    spared = directory in AS_ROOT_ALREADY and found.st_gid in _MAY_BE_ROOT
    return bool(found.st_mode & (0o002 if spared else 0o022))


def sync(fd: int) -> None:
    """Have what was written to that file survive a power cut. `OSError` if that is not certain.

    fsync(2) leaves it in the disk's own memory on macOS; F_FULLFSYNC does not, where there is one.
    """
    try:
        fcntl.fcntl(fd, _F_FULLFSYNC)
    except OSError as cause:
        if cause.errno not in _NO_FULLFSYNC:
            raise
        os.fsync(fd)


def clear_flags(fd: int) -> bool:
    """Clear what keeps a file's owner from removing it (chflags uchg, uappnd); whether any was set.

    What only root can set (schg) stays: a builder has not set it. `OSError` if it cannot be done.
    """
    flags = getattr(os.fstat(fd), "st_flags", 0)
    if (cleared := without_owners_flags(flags)) == flags:
        return False
    if ctypes.CDLL(None, use_errno=True).fchflags(fd, ctypes.c_uint(cleared)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return True


def without_owners_flags(flags: int) -> int:
    """Those `st_flags` but for the ones that keep a name from going and that are its owner's."""
    return flags & ~(_UF_IMMUTABLE | _UF_APPEND)


def declared_by(sign: str = "/run/current-system/darwin-version") -> str:
    """The system that makes this machine from what it declares; empty if none does."""
    return "nix-darwin" if os.path.exists(sign) else ""


def hidden_uid() -> int | None:
    """None: every owner has a uid here."""
    return None


def processes_of(uids: Collection[int], list_pids: ListPids | None = None) -> list[int] | None:
    """Pids whose real or effective uid is in `uids`; None if libproc does not say.

    It has to name this process first: what does not show us would not show others either.
    """
    found: set[int] = set()
    try:
        ask = list_pids or ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True).proc_listpids
        if os.getpid() not in _listed(ask, _UID_ONLY, os.geteuid()):
            return None
        for uid in uids:
            found.update(*(_listed(ask, kind, uid) for kind in (_UID_ONLY, _RUID_ONLY)))
    except OSError:
        return None
    return sorted(found)


def _listed(ask: ListPids, kind: int, uid: int) -> list[int]:
    """One answer; `OSError` unless it is whole.

    0 says that there are none, and also, with errno, that something went wrong; it is never -1
    (Apple's Libc, libproc.c). How much room is wanted is never 0.
    """
    ctypes.set_errno(0)
    if (room := ask(kind, uid, None, 0)) > 0:
        # Processes may start between the two calls: room for some more, and full is unknown.
        buffer = (ctypes.c_int32 * (room // 4 + 64))()
        used = ask(kind, uid, buffer, ctypes.sizeof(buffer))
        if 0 < used < ctypes.sizeof(buffer) or (used == 0 and not ctypes.get_errno()):
            return [pid for pid in buffer[: used // 4] if pid]
    raise OSError(ctypes.get_errno(), "proc_listpids does not say")


def death_of(pid: int) -> Death:
    """What turns readable when that process ends; whoever asks closes it (EVFILT_PROC, kqueue(2)).

    `ProcessLookupError` where it has ended. NOTE_EXIT alone, without the exit status, may be asked
    for any process (`filt_procattach` in XNU's bsd/kern/kern_event.c); and a kqueue can be waited
    for like a file (`kqueue_select`, `kqueue_kqfilter`, there too).
    """
    # Where types are checked; and in the tests' stand-in for a Mac, which has none.
    if sys.platform == "linux" or not hasattr(select, "kqueue"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    queue = select.kqueue()
    event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
    try:
        queue.control([event], 0)
    except OSError:
        queue.close()
        raise
    return queue


def orphans(user_lock: str, pids: Collection[int]) -> list[int]:
    """All of them: who holds a lock cannot be told here."""
    del user_lock
    return list(pids)


def parent_of(pid: int, ask: AskOf | None = None) -> int:
    """The pid of its parent; `OSError` where it cannot be told."""
    return int(struct.unpack_from("=5I", _about(pid, _BSD_INFO, 0, ask))[4])


def holds(pid: int, path: str, ask: AskOf | None = None) -> bool:
    """Whether somebody holds that file's flock, and that process, of root's, has the file open.

    Which process holds a flock cannot be told here.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        if struct.unpack_from("=6I", _about(pid, _BSD_INFO, 0, ask))[5] != 0:
            return False
        listed = _about(pid, _OPEN_FILES, 0, ask)
        wanted = (found.st_dev & 0xFFFFFFFF, found.st_ino)
        vnodes = (fd for fd, kind in struct.iter_unpack("=iI", listed) if kind == _VNODE)
        return any(_file_at(pid, fd, ask) == wanted for fd in vnodes)
    except OSError:
        return False


def _file_at(pid: int, fd: int, ask: AskOf | None) -> tuple[int, ...] | None:
    """Device and inode of what it has open there; None where that is closed by now."""
    with suppress(OSError):
        return struct.unpack_from("=I4xQ", _about(pid, _VNODE_INFO, fd, ask), _STAT_AT)
    return None


def _about(pid: int, what: tuple[str, int, int], fd: int, ask: AskOf | None) -> bytes:
    """What libproc has of a process, or of a file that it has open; `OSError` if nothing.

    Flavours and structures are those of sys/proc_info.h (xnu of macOS 15).
    """
    call, flavour, size = what
    buffer = ctypes.create_string_buffer(size)
    order = (fd, flavour) if what == _VNODE_INFO else (flavour, 0)
    used = (ask or _libproc)(call, pid, order, buffer)
    # Of one structure all or nothing is filled. A list that fills its room may go on.
    if not (0 < used < size if what == _OPEN_FILES else used == size):
        raise OSError(errno.ESRCH, f"libproc does not tell about process {pid}")
    return buffer.raw[:used]


def _libproc(
    call: str, pid: int, order: tuple[int, int], buffer: "ctypes.Array[ctypes.c_char]"
) -> int:
    function = ctypes.CDLL("/usr/lib/libproc.dylib", use_errno=True)[call]
    number = ctypes.c_uint64 if call == "proc_pidinfo" else ctypes.c_int
    return int(function(pid, order[0], number(order[1]), buffer, len(buffer)))


def processes_inside(directory: str, objects: Collection[tuple[int, int]]) -> list[int] | None:
    """None: Nix has no chroots on macOS, so nobody asks."""
    del directory, objects
    return None


def flocks(table: str = "") -> tuple[Flock, ...] | None:
    """None: macOS has no table of locks that a process could read."""
    del table
    return None


def mounts(table: str = "/sbin/mount") -> list[Mount] | None:
    """Every mount, as mount(8) prints them."""
    try:
        done = subprocess.run([table], capture_output=True, check=True, timeout=10, env={})
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_mounts(os.fsdecode(done.stdout))


def parse_mounts(text: str) -> list[Mount] | None:
    """The table from lines such as `/dev/disk3s7 on /nix (apfs, local, journaled)`."""
    found = []
    for line in filter(None, text.split("\n")):  # a name may hold any other end of a line
        place, bracket, options = line.rpartition(" (")
        _, on, point = place.partition(" on ")
        if not (on and bracket):
            return None
        found.append(Mount(point, options.split(",")[0].rstrip(")")))
    return found


def rename_exclusive(from_fd: int, name: str, to_fd: int, new_name: str) -> None:
    """renameatx_np(2) with RENAME_EXCL: `OSError`, and nothing changed, if `new_name` exists."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameatx_np(
        from_fd, os.fsencode(name), to_fd, os.fsencode(new_name), ctypes.c_uint(_RENAME_EXCL)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def make_writable(store_dir: str) -> None:
    """Nothing: no macOS installer mounts the store read-only."""
    del store_dir
