# SPDX-License-Identifier: MIT
"""How much an entry takes on disk, read by descriptor and bounded: a builder chose the tree."""

import itertools
import os
import stat

from storewarden.store.entries import Entry

_MAX_OPEN = 100


def tree_size(store_fd: int, entry: Entry, limit: int = 20_000) -> tuple[int, bool]:
    """Bytes that an entry takes on disk, and whether all of it could be read.

    By descriptor, never following, at most `limit` things and 100 levels: a builder chose the
    tree. An upper bound of what removal frees: files with other links free nothing.
    """
    total, left = entry.blocks * 512, limit
    if not stat.S_ISDIR(entry.mode):
        return total, True
    stack = [_open_below(store_fd, entry.base_name)]
    complete = True
    try:
        while stack:
            fd = stack.pop()
            if fd is None:
                complete = False
                continue
            try:
                with os.scandir(fd) as children:
                    for child in itertools.islice(children, left):
                        left -= 1
                        found = child.stat(follow_symlinks=False)
                        if found.st_dev != entry.file_id.device:
                            continue  # mounted there; not what the entry takes
                        total += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            deep = len(stack) >= _MAX_OPEN
                            stack.append(None if deep else _open_below(fd, child.name))
            except OSError:
                complete = False
            finally:
                os.close(fd)
    finally:
        for fd in stack:
            if fd is not None:
                os.close(fd)
    return total, complete and left > 0


def _open_below(directory_fd: int, name: str) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory_fd)
    except OSError:
        return None
