# SPDX-License-Identifier: MIT
"""The only place that asks which system this is. Standard library only.

Both modules have the same functions with the same types; None always means "cannot be told here".
"""

import sys
from collections.abc import Sequence

if sys.platform == "darwin":
    from storewarden.host.darwin import (
        ALLOCATED,
        FIRST_ALLOCATED,
        PER_SLOT,
        lock_holders,
        make_writable,
        mounts,
        peer,
        processes_inside,
        processes_of,
        rename_exclusive,
    )
else:
    from storewarden.host.linux import (
        ALLOCATED,
        FIRST_ALLOCATED,
        PER_SLOT,
        lock_holders,
        make_writable,
        mounts,
        peer,
        processes_inside,
        processes_of,
        rename_exclusive,
    )

__all__ = [
    "ALLOCATED",
    "FIRST_ALLOCATED",
    "PER_SLOT",
    "lock_holders",
    "make_writable",
    "mount_of",
    "mounts",
    "peer",
    "processes_inside",
    "processes_of",
    "rename_exclusive",
]


def mount_of(path: str, seen: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Mount point and file system type of what `path` is on: the longest mount point above it."""
    best, kind = "", ""
    for point, found in seen:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is on top.
        if inside and len(point) >= len(best):
            best, kind = point, found
    return best, kind
