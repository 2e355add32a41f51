# SPDX-License-Identifier: MIT
"""The only place that asks which system this is. Standard library only.

Both modules have the same functions with the same types; None always means "cannot be told here".
"""

import os
import socket
import sys
from collections.abc import Sequence

if sys.platform == "darwin":
    from storewarden.host.darwin import (
        ALLOCATED,
        FIRST_ALLOCATED,
        PER_SLOT,
        declared_by,
        hidden_uid,
        lock_holders,
        make_writable,
        mounts,
        next_signal,
        orphans,
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
        declared_by,
        hidden_uid,
        lock_holders,
        make_writable,
        mounts,
        next_signal,
        orphans,
        peer,
        processes_inside,
        processes_of,
        rename_exclusive,
    )

__all__ = [
    "ALLOCATED",
    "FIRST_ALLOCATED",
    "PER_SLOT",
    "declared_by",
    "hidden_uid",
    "listener",
    "lock_holders",
    "make_writable",
    "mount_of",
    "mounts",
    "next_signal",
    "orphans",
    "peer",
    "processes_inside",
    "processes_of",
    "rename_exclusive",
    "unfit",
]

# fmt: off
SHARED_FILE_SYSTEMS = frozenset(
    {
        "9p", "afpfs", "afs", "aufs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2",
        "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs",
        "overlay", "panfs", "prl_fs", "pvfs2", "shiftfs", "smb3", "smbfs", "unionfs", "vboxsf",
        "virtiofs", "vmhgfs", "webdav", "wekafs"
    }
)
# fmt: on
"""Others may write there without our seeing their locks, or the entry may lie in a lower layer."""
_CONNECT_SECONDS = 5.0


def listener(path: str) -> tuple[int, int | None] | None:
    """Uid and pid of who listens at that Unix socket, as `peer` has them; None where nobody does.

    `OSError` where it cannot be reached.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            os.stat(path)  # first, because connect() has errors of its own for a long path
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return peer(connection)


def mount_of(path: str, seen: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Mount point and file system type of what `path` is on: the longest mount point above it."""
    best, kind = "", ""
    for point, found in seen:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is on top.
        if inside and len(point) >= len(best):
            best, kind = point, found
    return best, kind


def unfit(path: str, seen: Sequence[tuple[str, str]]) -> str:
    """Why nothing may be removed on the file system that `path` is on; empty where it may."""
    point, kind = mount_of(path, seen)
    # A container's own root: nobody else writes to it, and its locks are its own. Its lower
    # layers, the image, are never changed: at most the rename fails (EXDEV).
    if (point, kind) == ("/", "overlay"):
        return ""
    if not kind:
        return f"which file system {path} is on cannot be told here (in a chroot?)"
    if kind in SHARED_FILE_SYSTEMS or kind.startswith("fuse"):
        return (
            f"{path} is on a file system of type {kind}, where locks and layers cannot be trusted"
        )
    return ""
