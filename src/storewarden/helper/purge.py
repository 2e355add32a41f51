# SPDX-License-Identifier: MIT
"""Rename out of the store into a private directory, and flatten what lies there.

By descriptor, never following, never recursing.

The only names that are opened stand in a private directory that no other user can search. In a
directory that a builder may still write to, only unlink, rmdir and rename are used, which act on
the name itself. So there is nothing to swap a link into, and no mount is crossed: the rename of
a mount point fails.
"""

import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from storewarden.errors import reason_of
from storewarden.host import clear_flags, rename_exclusive
from storewarden.store.entries import (
    OPEN_TO_OTHERS,
    PRIVATE_MODE,
    PRIVATE_PREFIX,
    look,
    opened_anew,
)
from storewarden.store.paths import StorePath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 8
"""Where something is left, and something else went: who writes into the tree may have ended."""
PURGE_SECONDS = 60.0
"""For all purges of a run together; what is left then is left to the next run.

Whoever has a directory in the tree open to write may make names in it faster than they go.
"""
_AS_IT_IS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_SYMLINK", os.O_NOFOLLOW)
"""To open a name and never what it points to; on macOS a link itself can be opened."""
_NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


@dataclass(frozen=True, slots=True)
class Private:
    """A private directory inside the store directory, its flock held."""

    name: str
    fd: int


@contextmanager
def new_private(store_fd: int) -> Iterator[Private]:
    """A new private directory; removed at the end if it is empty, else left for the next run.

    Nix's collector leaves a `tmp-*` directory alone while its flock is held (2.12 and later),
    and collects it if we die; an older one may collect it at once, which does no harm.
    """
    # Never used before, so that the audit log's records of it are of this one alone.
    name = f"{PRIVATE_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
    os.mkdir(name, PRIVATE_MODE, dir_fd=store_fd)
    with old_private(store_fd, name) as private:
        if private is None:
            raise OSError(errno.EAGAIN, "the private directory was taken away", name)
        yield private


@contextmanager
def old_private(store_fd: int, name: str) -> Iterator[Private | None]:
    """One that is there, as of an interrupted run; None if its owner lives or it is not ours."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=store_fd)
    except OSError:
        yield None
        return
    try:
        if not _is_free_and_ours(store_fd, fd):
            yield None
            return
        try:
            yield Private(name, fd)
        finally:
            with suppress(OSError):  # not empty: the next run goes on with it; gone: fine too
                os.rmdir(name, dir_fd=store_fd)
    finally:
        os.close(fd)


def _is_free_and_ours(store_fd: int, fd: int) -> bool:
    """Whether nobody else can enter it, and nobody is at work there, now that its flock is ours."""
    try:
        found, store = os.fstat(fd), os.fstat(store_fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    # An odd umask of who made it may have left less than 0700.
    ours = (found.st_uid, found.st_dev) == (os.geteuid(), store.st_dev)
    return ours and not found.st_mode & OPEN_TO_OTHERS


def deadlines(count: int, seconds: float = PURGE_SECONDS) -> Iterator[float]:
    """When each of so many purges has to end: it has an equal part of the time that is left."""
    end = time.monotonic() + seconds
    for left in range(count, 0, -1):
        now = time.monotonic()
        yield now + max(0.0, end - now) / left


@dataclass(slots=True)
class Purged:
    """What was unlinked so far, by earlier runs too, and what would not go."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    """Freed bytes: of files with other links, none."""
    failures: int = 0
    reason: str = ""
    until: float = float("inf")
    late: bool = False
    """Whether the time was over before all was looked at."""
    clear_flags: Callable[[int], bool] = clear_flags
    """Clears what keeps the owner of the opened file from removing it; whether anything did."""

    def is_late(self) -> bool:
        """Whether to leave the rest to the next run."""
        self.late = time.monotonic() > self.until
        return self.late

    def fail(self, cause: OSError) -> None:
        """Count what could not be removed and keep the first reason."""
        self.failures += 1
        self.reason = self.reason or reason_of(cause)


def remove_from_store(store_fd: int, base_name: str, private: Private) -> None:
    """Move the entry into the private directory: at once, whatever its size. `OSError` else."""
    _rename(store_fd, base_name, private.fd, base_name)


def put_back(store_fd: int, base_name: str, private: Private) -> None:
    """Undo `remove_from_store`; `OSError`, and nothing changed, if the name is in use again."""
    _rename(private.fd, base_name, store_fd, base_name)
    os.fsync(store_fd)  # the log may be on another disk, and what it has as put back is done with


def _rename(from_fd: int, name: str, to_fd: int, new_name: str) -> None:
    try:
        rename_exclusive(from_fd, name, to_fd, new_name)
    except OSError as cause:
        if cause.errno not in _NO_SUCH_CALL:
            raise
        # gVisor and some file systems lack it. Who renames here holds the path's lock, or is
        # alone in the private directory, so looking first is as good.
        if look(to_fd, new_name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name) from cause
        os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def purge(private: Private, purged: Purged) -> Purged:
    """Remove all that lies in the private directory; may be called again after any interruption.

    Sub-directories are moved up and emptied one after the other, so neither depth nor width
    costs memory or descriptors. What cannot be removed is counted and left.
    """
    prefix = os.urandom(8).hex()
    fresh = (f"{prefix}-{number}" for number in itertools.count())
    tries = _TRIES
    while tries:
        before, purged.failures = purged.files + purged.directories, 0
        # A pass may or may not come upon what it moves up itself, so there is another after it.
        if _purge_all(private.fd, fresh, purged):
            continue
        if not purged.failures or before == purged.files + purged.directories:
            break
        tries -= 1
    return purged


def _purge_all(private_fd: int, fresh: Iterator[str], purged: Purged) -> bool:
    """Remove each name of the private directory; whether they gave directories to purge in turn.

    A tree loses its name before anything in it is removed: what still has the name of a store
    path is whole, and only that is ever put back.
    """
    moved = False
    try:
        with opened_anew(private_fd) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if purged.is_late():
                    return False
                for child in _to_move(private_fd, entry.name, purged):
                    moved |= _move_up(*child, private_fd, next(fresh), purged)
    except OSError as cause:
        purged.fail(cause)
    return moved


def _to_move(private_fd: int, name: str, purged: Purged) -> Iterable[tuple[int, str]]:
    if StorePath.maybe(name) is not None:
        return [(private_fd, name)]
    return _purge_one(private_fd, name, purged)


def _move_up(from_fd: int, name: str, to_fd: int, new_name: str, purged: Purged) -> bool:
    try:
        _despite_flags(
            lambda: os.rename(name, new_name, src_dir_fd=from_fd, dst_dir_fd=to_fd),
            from_fd,
            name,
            purged.clear_flags,
        )
    except FileNotFoundError:
        return False
    except OSError as cause:
        purged.fail(cause)
        return False
    return True


def _purge_one(private_fd: int, name: str, purged: Purged) -> Iterator[tuple[int, str]]:
    """Empty the directory `name` of all but directories, which are given out to be moved."""
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=private_fd)
    except FileNotFoundError:
        return  # a collector was quicker
    except OSError as cause:
        if cause.errno in {errno.ENOTDIR, errno.ELOOP}:
            _purge_name(private_fd, name, os.unlink, purged)
        else:
            purged.fail(cause)
        return
    try:
        with os.scandir(fd) as children:
            for child in children:
                if purged.is_late():
                    return
                if not child.is_dir(follow_symlinks=False):
                    _purge_name(fd, child.name, os.unlink, purged)
                elif not _purge_name(fd, child.name, os.rmdir, purged):
                    yield fd, child.name
        if not _purge_name(private_fd, name, os.rmdir, purged):
            purged.fail(OSError(errno.ENOTEMPTY, "not empty"))
    except OSError as cause:
        purged.fail(cause)  # it cannot be read to its end, as on a bad disk
    finally:
        os.close(fd)


def _purge_name(
    directory_fd: int, name: str, purge_it: Callable[..., None], purged: Purged
) -> bool:
    """Remove the name by unlink or rmdir; False if it is a directory that is not empty."""
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        _despite_flags(
            lambda: purge_it(name, dir_fd=directory_fd), directory_fd, name, purged.clear_flags
        )
    except FileNotFoundError:
        return True
    except OSError as cause:
        if cause.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        purged.fail(cause)
        return True
    is_directory = stat.S_ISDIR(found.st_mode)
    purged.directories += is_directory
    purged.files += not is_directory
    if is_directory or found.st_nlink == 1:
        purged.bytes += found.st_blocks * 512
    return True


def _despite_flags(
    act: Callable[[], None], directory_fd: int, name: str, clear: Callable[[int], bool]
) -> None:
    """Do that to the name; where it may not be done, once more after its owner's flags are cleared.

    Only of what is nowhere but here: the directory, and the name itself if it is a directory or has
    no other link. An inode with more links may be one of a valid path's, and is never touched.
    """
    try:
        act()
    except PermissionError:
        cleared = clear(directory_fd)
        with suppress(OSError):  # a socket cannot be opened
            fd = os.open(name, _AS_IT_IS, dir_fd=directory_fd)
            try:
                found = os.fstat(fd)
                if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
                    cleared |= clear(fd)
            finally:
                os.close(fd)
        if not cleared:
            raise
        act()
