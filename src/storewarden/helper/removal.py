# SPDX-License-Identifier: MIT
"""Rename out of the store, then flatten: by descriptor, never following, never recursing.

The only names that are opened stand in a private directory that no other user can search. In a
directory that a builder may still write to, only unlink, rmdir and rename are used, which act on
the name itself. So there is nothing to swap a link into, and no mount is crossed: the rename of
a mount point fails.
"""

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from storewarden.helper.private import DIRECTORY, Private
from storewarden.host import rename_exclusive
from storewarden.store.entries import look
from storewarden.store.paths import StorePath

_ROUNDS_WITH_FAILURES = 8
_NO_SUCH_CALL = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


@dataclass(slots=True)
class Purged:
    """What was unlinked so far, and what would not go."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    """Freed bytes: of files with other links, none."""
    failures: int = 0
    reason: str = ""

    def fail(self, cause: OSError) -> None:
        """Count what could not be removed and keep the first reason."""
        self.failures += 1
        self.reason = self.reason or os.strerror(cause.errno or 0).lower()


def remove_from_store(store_fd: int, base_name: str, private: Private) -> None:
    """Move the entry into the private directory: at once, whatever its size. `OSError` else."""
    _rename(store_fd, base_name, private.fd, base_name)


def put_back(store_fd: int, base_name: str, private: Private) -> None:
    """Undo `remove_from_store`; `OSError`, and nothing changed, if the name is in use again."""
    _rename(private.fd, base_name, store_fd, base_name)


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


def purge(private: Private) -> Purged:
    """Remove all that lies in the private directory; may be called again after any interruption.

    Sub-directories are moved up and emptied one after the other, so neither depth nor width
    costs memory or descriptors. What cannot be removed is counted and left.
    """
    purged = Purged()
    prefix = os.urandom(8).hex()
    numbers = itertools.count()
    _forget_names(private.fd, prefix, numbers)
    for _ in range(_ROUNDS_WITH_FAILURES):
        moved = True
        purged.failures = 0
        # A pass may or may not come upon what it moves up itself, so there is another after it.
        while moved and not purged.failures:
            moved = False
            with os.scandir(private.fd) as entries:
                for entry in entries:
                    moved |= _purge_entry(private.fd, entry.name, prefix, numbers, purged)
        if not purged.failures:
            break
    return purged


def _forget_names(private_fd: int, prefix: str, numbers: Iterator[int]) -> None:
    """Take its name from a tree before anything in it is removed.

    What still has the name of a store path is whole: only that is ever put back.
    """
    for name in os.listdir(private_fd):
        if StorePath.maybe(name) is not None:
            with suppress(FileNotFoundError):
                os.rename(
                    name,
                    f"{prefix}-{next(numbers)}",
                    src_dir_fd=private_fd,
                    dst_dir_fd=private_fd,
                )


def _purge_entry(
    private_fd: int, name: str, prefix: str, numbers: Iterator[int], purged: Purged
) -> bool:
    """Remove one name of the private directory; whether it gave directories to purge in turn."""
    moved = False
    for child in _purge_one(private_fd, name, purged):
        try:
            os.rename(
                child.name,
                f"{prefix}-{next(numbers)}",
                src_dir_fd=child.parent_fd,
                dst_dir_fd=private_fd,
            )
            moved = True
        except FileNotFoundError:
            continue
        except OSError as cause:
            purged.fail(cause)
    return moved


@dataclass(frozen=True, slots=True)
class _Child:
    parent_fd: int
    name: str


def _purge_one(private_fd: int, name: str, purged: Purged) -> Iterator[_Child]:
    """Empty the directory `name` of all but directories, which are given out to be moved."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=private_fd)
    except FileNotFoundError:
        return  # a collector was quicker
    except OSError as cause:
        if cause.errno in {errno.ENOTDIR, errno.ELOOP}:
            _purge_file(private_fd, name, purged)
        else:
            purged.fail(cause)
        return
    try:
        with os.scandir(fd) as children:
            for child in children:
                if not child.is_dir(follow_symlinks=False):
                    _purge_file(fd, child.name, purged)
                elif not _rmdir(fd, child.name, purged):
                    yield _Child(fd, child.name)
        if not _rmdir(private_fd, name, purged):
            purged.fail(OSError(errno.ENOTEMPTY, "not empty"))
    finally:
        os.close(fd)


def _purge_file(directory_fd: int, name: str, purged: Purged) -> None:
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    except OSError as cause:
        purged.fail(cause)
        return
    purged.files += 1
    if found.st_nlink == 1:
        purged.bytes += found.st_blocks * 512


def _rmdir(directory_fd: int, name: str, purged: Purged) -> bool:
    """Whether the directory is gone now; False if it still has something in it."""
    try:
        found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        os.rmdir(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return True
    except OSError as cause:
        if cause.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        purged.fail(cause)
        return True
    purged.directories += 1
    purged.bytes += found.st_blocks * 512
    return True
