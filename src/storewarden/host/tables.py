# SPDX-License-Identifier: MIT
"""What a system's tables of mounts and of file locks hold, and what follows from them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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


class Mount(NamedTuple):
    """A mount as it is seen here."""

    point: str
    type: str
    """Of its file system; empty where it cannot be told."""

    def is_within(self, place: str) -> bool:
        """Whether it is mounted on that path or below it."""
        return self.point == place or self.point.startswith(f"{place}/")

    def carries(self, path: str) -> bool:
        """Whether the path is its mount point or below that."""
        return path == self.point or path.startswith(self.point.rstrip("/") + "/")


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount:
    """What `path` is on: of the mounts above it the one with the longest mount point."""
    above = [mount for mount in mounts if mount.carries(path)]
    # Of two mounts on one point the later one is on top.
    return max(reversed(above), key=lambda mount: len(mount.point), default=Mount("", ""))


def unfit(path: str, mounts: Sequence[Mount]) -> str:
    """Why nothing may be removed on the file system that `path` is on; empty where it may."""
    match mount_of(path, mounts):
        # A container's own root: nobody else writes to it, and its locks are its own. Its lower
        # layers, the image, are never changed: at most the rename fails (EXDEV).
        case Mount("/", "overlay"):
            return ""
        case Mount(_, ""):
            return f"which file system {path} is on cannot be told here (in a chroot?)"
        case Mount(_, kind) if kind in SHARED_FILE_SYSTEMS or kind.startswith("fuse"):
            return (
                f"{path} is on a file system of type {kind},"
                " where locks and layers cannot be trusted"
            )
    return ""


class Death(Protocol):
    """What turns readable when a process ends, until it is closed."""

    def fileno(self) -> int: ...  # noqa: D102 - as of a file

    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Flock:
    """A `flock` that is held, or that a process waits for in the kernel."""

    pid: int
    """Who took it. Its children may hold it on after its end."""
    inode: int
    exclusive: bool
    waits: bool
    device: str = field(default="", compare=False)
    """As the table has it, such as `00:2d`; on btrfs that is not the one that stat() gives."""


def exclusive_holders(flocks: Iterable[Flock]) -> dict[int, int]:
    """By inode the pid that holds a flock on it exclusively."""
    return {lock.inode: lock.pid for lock in flocks if lock.exclusive and not lock.waits}
