# SPDX-License-Identifier: MIT
"""Entries of a store directory: what lies there, by descriptor, and of which kind it is.

Every name here may have been chosen by a build user: the store directory is group-writable and
sticky, so symbolic links, fifos and hard links may stand under any name.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from storewarden.errors import StoreUnreadableError, reason_of
from storewarden.store.paths import LOCK_SUFFIX, Origin, StorePath, parse_lock_name

LINKS = ".links"
PRIVATE_PREFIX = "tmp-storewarden-"
"""Our private directories: Nix's collector spares a locked `tmp-*` (2.12+), else collects it."""
PRIVATE_MODE, OPEN_TO_OTHERS = 0o700, 0o077
_TEMPORARY = re.compile(r"(tmp|add|rename-tmp|\.tmp|\.tmp-link)-.*|trash", re.DOTALL)
_OLD = re.compile(r".*\.old-[0-9]+-[0-9]+", re.DOTALL)
_LOCK_MODE = 0o600


class EntryKind(StrEnum):
    """What an entry is, which decides what proof its removal needs: a row each.

    Its name; how the names end that Nix itself gives to such entries, if they end alike; and why it
    is only reported, if nothing can prove it dead.
    """

    suffix: str
    only_reported: str

    def __new__(cls, name: str, suffix: str = "", only_reported: str = "") -> Self:
        """One row."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.suffix, kind.only_reported = suffix, only_reported
        return kind

    OUTPUT = "output"
    LOCK = "lock"
    CHROOT = ("chroot", ".drv.chroot")
    # fmt: off
    OUTPUT_OF_ROOT = ("output-of-root", "",
        "made by Nix itself: may be a copy in progress or one to be resumed")
    TEMPORARY = ("temporary", ".tmp",
        "a temporary of Nix's own, which its garbage collector removes")
    CHECK = ("check", ".check", "left on purpose by a --check build whose result differed")
    OLD = ("old", "", "may be the only good copy of a path that was being replaced")
    FOREIGN = ("foreign", "", "not made by Nix's builders as far as can be told")
    MISSING = ("missing", "", "registered as valid but not on disk")
    # fmt: on


@dataclass(frozen=True, slots=True)
class BuildUsers:
    """Who builds here: members and gid of the build group, and the auto-allocated uids."""

    gid: int | None
    uids: frozenset[int]
    first_allocated: int
    allocated: int
    per_slot: int

    @property
    def exist(self) -> bool:
        """Whether builds run as users of their own, and not as the store's owner."""
        return self.gid is not None or bool(self.uids)

    @property
    def everyone(self) -> tuple[frozenset[int], range]:
        """All uids that builds may run as."""
        first = self.first_allocated
        return self.uids, range(first, first + self.allocated)

    def slot(self, uid: int) -> int | None:
        """The `userpool2/slot-<n>` of `uid` (user-lock.cc, 2.12 and later); a member has none."""
        offset = uid - self.first_allocated
        allocated = 0 <= offset < self.allocated and uid not in self.uids
        return offset // self.per_slot if allocated else None

    def user_lock(self, uid: int) -> str:
        """The lock file, below the state directory, that a build as `uid` holds."""
        slot = self.slot(uid)
        return f"userpool/{uid}" if slot is None else f"userpool2/slot-{slot}"

    def is_stranger(self, uid: int) -> bool:
        """Whether it is neither a member of the build group nor known to be allocated."""
        return uid not in self.uids and self.slot(uid) is None

    def under_lock_of(self, uid: int) -> Collection[int]:
        """All uids that a build may run as which holds the lock of `uid`."""
        slot = self.slot(uid)
        if slot is None:
            return (uid,)
        first = self.first_allocated + slot * self.per_slot
        return range(first, first + self.per_slot)

    def own(self, uid: int, gid: int) -> bool:
        """Whether something of that uid and gid was made by a build user."""
        if uid == 0:
            return False
        return uid in self.uids or gid == self.gid or self.slot(uid) is not None


class FileId(NamedTuple):
    """Which object of a file system it is, whatever it is called. `host` takes it for a tuple."""

    device: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """That of what `stat` found."""
        return cls(found.st_dev, found.st_ino)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in the store directory, as `lstat` saw it."""

    base_name: str
    file_id: FileId
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    blocks: int
    """Of 512 bytes, as stat counts them."""
    ctime: float
    """Seconds since the epoch. Never mtime: Nix sets that to 1."""

    @property
    def store_path(self) -> StorePath | None:
        """The store path it is called after, if any."""
        return StorePath.maybe(self.base_name)

    @property
    def open_to_others(self) -> bool:
        """Whether users other than the owner may write into it: another build may go on with it.

        None does with what lies where a lock of Nix's belongs and has nothing in it.
        """
        filled = stat.S_ISREG(self.mode) and (self.size, self.links) != (0, 1)
        counts = filled or stat.S_ISDIR(self.mode) or not self.base_name.endswith(LOCK_SUFFIX)
        return not stat.S_ISLNK(self.mode) and bool(self.mode & 0o022) and counts

    def same_object(self, other: "Entry") -> bool:
        """Whether both are the same file system object with the same owner."""
        return (self.file_id, self.uid) == (other.file_id, other.uid)


def open_directory(path: str) -> int:
    """A descriptor of the directory at `path`; `StoreUnreadableError` names what is wrong."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StoreUnreadableError(
            f"there is no store directory {path}; is Nix installed here?"
        ) from None
    except OSError as cause:
        raise StoreUnreadableError(
            f"cannot open the store directory {path}: {reason_of(cause)}"
        ) from cause


@contextmanager
def opened_anew(directory_fd: int) -> Iterator[int]:
    """Another descriptor of a directory, to list it with: it stands at the beginning for certain.

    Copies of one descriptor share their place in a directory. Where the rewind after a listing
    fails, the next one would find nothing there.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def each_name(store_fd: int) -> Iterator[str]:
    """Every name in the store directory but `.links`, one after the other."""
    try:
        with opened_anew(store_fd) as fd, os.scandir(fd) as entries:
            for entry in entries:
                if entry.name != LINKS:
                    yield entry.name
    except OSError as cause:
        raise StoreUnreadableError(
            f"cannot list the store directory: {reason_of(cause)}"
        ) from cause


def look(directory_fd: int, base_name: str) -> Entry | None:
    """The entry of that name, never followed; None where there is none (any more)."""
    try:
        found = os.stat(base_name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return entry_of(base_name, found)


def count_owned(directory_fd: int, names: Iterable[str], build_users: BuildUsers) -> int:
    """How many of those names are a build user's, and not the directory's owner's."""
    count, owner = 0, os.fstat(directory_fd).st_uid
    for name in names:
        with suppress(OSError):
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            count += found.st_uid != owner and build_users.own(found.st_uid, found.st_gid)
    return count


def entry_of(base_name: str, found: os.stat_result) -> Entry:
    """The entry called `base_name` with what `stat` found."""
    owned = found.st_mode, found.st_nlink, found.st_uid, found.st_gid
    size = found.st_size, found.st_blocks
    return Entry(base_name, FileId.of(found), *owned, *size, found.st_ctime)


def is_lock_file(entry: Entry, store_uid: int) -> bool:
    """Whether it is exactly what pathlocks.cc leaves: 0600, empty, one link, the store owner's.

    An output may be called `….lock` too (a `Cargo.lock`, say), empty while its builder lives; it
    is a build user's, and once canonicalised its mode is 0444.
    """
    return (
        bool(parse_lock_name(entry.base_name))
        and stat.S_ISREG(entry.mode)
        and stat.S_IMODE(entry.mode) == _LOCK_MODE
        and (entry.size, entry.links, entry.uid) == (0, 1, store_uid)
    )


def classify(
    entry: Entry, origin: Origin | None, *, store_uid: int, build_users: BuildUsers
) -> EntryKind:
    """The kind of an unregistered entry. `store_uid` is the store directory's owner.

    A name decides only what no build could have chosen: a derivation may be called `foo.tmp` or
    `foo.check`, and what Nix itself calls so is the store owner's.
    """
    if StorePath.maybe(entry.base_name) is None:
        temporary = _TEMPORARY.fullmatch(entry.base_name)
        return EntryKind.TEMPORARY if temporary else EntryKind.FOREIGN
    if is_lock_file(entry, store_uid):
        return EntryKind.LOCK
    own = build_users.own(entry.uid, entry.gid)
    if entry.uid != store_uid:
        proved = origin is not None and origin.proved
        return EntryKind.OUTPUT if own or proved else EntryKind.FOREIGN
    # Nix makes a scratch path its own before it registers it. Where builds run as the store's
    # owner (no build users, which only root can have), a builder that outlived its worker would
    # look the same, and nothing tells whether there is one.
    by_builder = own or (build_users.exist and store_uid == 0)
    proved = by_builder and origin is not None and origin.scratch
    kind = _kind_of_nix(entry.base_name)
    return EntryKind.OUTPUT if proved or (own and kind is EntryKind.OUTPUT_OF_ROOT) else kind


def _kind_of_nix(name: str) -> EntryKind:
    other = EntryKind.OLD if _OLD.fullmatch(name) else EntryKind.OUTPUT_OF_ROOT
    called = (kind for kind in EntryKind if kind.suffix and name.endswith(kind.suffix))
    return next(called, other)
