# SPDX-License-Identifier: MIT
"""Private directories inside the store directory, where what was taken out of it is purged."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from storewarden.store.entries import OPEN_TO_OTHERS, PRIVATE_MODE, PRIVATE_PREFIX

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        fd = os.open(name, DIRECTORY, dir_fd=store_fd)
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
