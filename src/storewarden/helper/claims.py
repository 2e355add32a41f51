# SPDX-License-Identifier: MIT
"""Nix's own locks, taken the Nix way, never waited for, and held until the caller's stack ends.

Each `hold_*` gives a fact about the claim: NO means "nobody has it, and now we do". What the system
refuses is an `OSError`, which `settle` makes unknown. Read in pathlocks.cc, user-lock.cc and gc.cc
of Nix 2.8.1, 2.26.4 and 2.34.6.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from storewarden.errors import reason_of
from storewarden.store.entries import BuildUsers, Entry, look
from storewarden.store.fact import NO, Fact, Known
from storewarden.store.paths import StoreDir, StorePath, parse_lock_name

_ATTEMPTS = 8
_LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LOCK_MODE = 0o600


Ask = Callable[[], Fact]


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock file whose flock is ours."""

    base_name: str
    fd: int


def settle(ask: Ask) -> Fact:
    """The fact that is asked for; unknown where the system refuses to tell."""
    try:
        return ask()
    except OSError as cause:
        place = f"{os.path.basename(os.fspath(cause.filename))}: " if cause.filename else ""
        return Fact(Known.UNKNOWN, f"{place}{reason_of(cause)}")


def hold_collector(stack: ExitStack, state_dir: str) -> Fact:
    """Hold `gc.lock` shared, so that no collector unlinks the lock files held after it.

    Builders take it shared too, so they are not stalled; a collector waits for milliseconds.
    """
    return _hold_state(stack, state_dir, "gc.lock", fcntl.LOCK_SH)


def hold_user(stack: ExitStack, state_dir: str, uid: int, build_users: BuildUsers) -> Fact:
    """Hold the lock of that build user, so that no build starts as it; Nix takes another."""
    if build_users.is_stranger(uid) and "userpool2" in os.listdir(state_dir):
        return Fact(Known.UNKNOWN, f"uid {uid} may be one that Nix allocates, by another start-id")
    name = build_users.user_lock(uid)
    pool = os.path.dirname(f"{state_dir}/{name}")
    if not os.path.isdir(pool):
        with suppress(OSError):  # as Nix makes it before its first build, whatever the umask
            os.mkdir(pool)
            os.chmod(pool, 0o755)  # noqa: S103 - its own mode
    return _hold_state(stack, state_dir, name, fcntl.LOCK_EX)


def _hold_state(stack: ExitStack, state_dir: str, name: str, operation: int) -> Fact:
    path = f"{state_dir}/{name}"
    try:
        fd = os.open(path, _LOCK_FLAGS | os.O_CREAT, _LOCK_MODE)
    except OSError as cause:
        if cause.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        fd = os.open(path, _READ_FLAGS)  # for its flock alone, where it may not be written
    stack.callback(os.close, fd)
    return _flock(fd, operation, f"{name} is held")


def hold_lock_file(stack: ExitStack, store_fd: int, base_name: str) -> HeldLock | Fact | None:
    """Hold the lock of an existing lock file; None where there is none by that name."""
    if "/" in base_name:
        return Fact(Known.UNKNOWN, f"{base_name!r} is no name in the store directory")
    try:
        fd = os.open(base_name, _LOCK_FLAGS, dir_fd=store_fd)
    except FileNotFoundError:
        return None
    stack.callback(os.close, fd)
    fact = _flock(fd, fcntl.LOCK_EX, f"{base_name} is held")
    if fact.known is not Known.NO:
        return fact
    if not _is_linked(store_fd, base_name, fd):
        return None  # unlinked before the lock was ours: the name is free, or another file's
    # Whoever owns it may unlink it under our lock, and Nix would lock another file.
    found, owner = os.fstat(fd), os.fstat(store_fd).st_uid
    plain = stat.S_ISREG(found.st_mode)
    if not plain or (found.st_size, found.st_nlink, found.st_uid) != (0, 1, owner):
        seen = f"uid {found.st_uid}, {found.st_size} bytes, {found.st_nlink} links"
        return Fact(Known.UNKNOWN, f"{base_name} is not an empty lock file of Nix's, but: {seen}")
    return HeldLock(base_name, fd)


def hold_planted(stack: ExitStack, store_fd: int, entry: Entry) -> Fact | None:
    """Hold the lock of a build user's file that lies where one of Nix's belongs; None: it is ours.

    Nix, as root, takes whatever lies there for its lock file.
    """
    if not (stat.S_ISREG(entry.mode) and parse_lock_name(entry.base_name)):
        return None
    fd = os.open(entry.base_name, _READ_FLAGS, dir_fd=store_fd)
    stack.callback(os.close, fd)
    fact = _flock(fd, fcntl.LOCK_EX, f"{entry.base_name} is held")
    return None if fact.known is Known.NO else fact


def remove_lock_file(store_fd: int, lock: HeldLock) -> None:
    """Unlink a held lock file, then mark its inode: in this order, pathlocks.cc `deleteLockFile`.

    Nix takes a lock file of non-zero size for one that was unlinked, and starts afresh. The size
    is set rather than a byte written, because that cannot fail on a full disk.
    """
    if _is_linked(store_fd, lock.base_name, lock.fd):
        with suppress(FileNotFoundError):
            os.unlink(lock.base_name, dir_fd=store_fd)
    os.ftruncate(lock.fd, 1)


def _release(store_fd: int, lock: HeldLock) -> None:
    """Remove a lock file that was made here; one that stays is empty, free, and does no harm."""
    with suppress(OSError):
        remove_lock_file(store_fd, lock)


def _is_linked(store_fd: int, base_name: str, fd: int) -> bool:
    """Whether the name still leads to that very file, so that its lock is the one of the name."""
    found, linked = os.fstat(fd), look(store_fd, base_name)
    return linked is not None and (linked.device, linked.inode) == (found.st_dev, found.st_ino)


def hold_path(stack: ExitStack, store_fd: int, base_name: str) -> HeldLock | Fact:
    """Hold the path lock of that name, making its file where there is none.

    One that was made here is removed when the stack ends; one that was there stays.
    """
    made = False
    for _ in range(_ATTEMPTS):
        held = hold_lock_file(stack, store_fd, base_name)
        if held is not None:
            if made and isinstance(held, HeldLock):
                stack.callback(_release, store_fd, held)
            return held
        flags = _LOCK_FLAGS | os.O_CREAT | os.O_EXCL
        try:
            os.close(os.open(base_name, flags, _LOCK_MODE, dir_fd=store_fd))
            made = True
        except FileExistsError:
            made = False  # a build made it first
    return Fact(Known.UNKNOWN, f"{base_name} changed hands {_ATTEMPTS} times")


def temp_roots(state_dir: str, store_dir: StoreDir) -> dict[StorePath, str]:
    """Every temp root of a live process, with that process's pid.

    gc.cc `findTempRoots`: a file whose flock can be taken has a dead owner. It is left alone:
    tidying these is the collector's. A missing directory means that nobody ever had a root.
    """
    roots: dict[StorePath, str] = {}
    directory = f"{state_dir}/temproots"
    with suppress(FileNotFoundError):
        for name in [name for name in os.listdir(directory) if not name.startswith(".")]:
            for text in _live_content(f"{directory}/{name}").split(b"\0"):
                base_name = os.fsdecode(text).removeprefix(f"{store_dir.path}/")
                if (path := StorePath.maybe(base_name)) is not None:
                    roots[path] = name
    return roots


def rooted(roots: dict[StorePath, str], paths: Collection[StorePath]) -> Fact:
    """Whether a live temp root has the hash part of one of `paths`, as the collector compares."""
    hash_parts = {path.hash_part for path in paths}
    for root, pid in roots.items():
        if root.hash_part in hash_parts:
            return Fact(Known.YES, f"process {pid}")
    return NO


def _live_content(path: str) -> bytes:
    try:
        fd = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return b""  # its process ended meanwhile
    with os.fdopen(fd, "rb") as file:
        dead = _flock(fd, fcntl.LOCK_EX, "").known is Known.NO
        return b"" if dead else file.read()


def _flock(fd: int, operation: int, busy: str) -> Fact:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return Fact(Known.YES, busy)
    return NO
