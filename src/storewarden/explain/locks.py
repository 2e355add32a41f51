# SPDX-License-Identifier: MIT
"""Nix's lock files: which there are, who holds them, who waits. Looked at; none is ever tried.

Even a flock that is tried for an instant could make a builder wait, so the table of the kernel is
all that is asked. Where it cannot be read, or shows another pid namespace, it is unknown.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from glob import escape, glob

from storewarden.host import Flock, exclusive_holders, flocks
from storewarden.processes import Running, running
from storewarden.registrations import list_names, origins_of
from storewarden.scan import locked_by
from storewarden.sight import temp_roots
from storewarden.store.entries import Entry, entry_of, look
from storewarden.store.fact import Known
from storewarden.store.paths import LOCK_SUFFIX, Deriver, StorePath, covered_paths, parse_lock_name
from storewarden.store.store import Store

_BELOW_STATE = (
    "gc.lock",
    "db/big-lock",
    "userpool/*",
    "userpool2/slot-*",
    "temproots/*",
    "profiles/*.lock",
    "profiles/per-user/*/*.lock",
)


class Role(StrEnum):
    """What a lock file is for."""

    STORE = "store"
    """A path, or an output of a derivation, that is built, fetched or added."""
    BUILD_USER = "build-user"
    COLLECTOR = "collector"
    """`gc.lock`: held exclusively by a collector."""
    TEMP_ROOTS = "temp-roots"
    PROFILE = "profile"
    DATABASE = "database"
    """`db/big-lock`: shared by all that have the store open, exclusive while it is upgraded."""


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file and what is to be seen around it."""

    path: str
    role: Role
    changed: float | None
    """Unix time (ctime): when it was made, unless it was reused or touched since."""
    size: int | None
    held: Known
    shared: bool = False
    """Held by any number at once, which only keeps out who wants it alone."""
    holders: tuple[Running, ...] = ()
    blocked: tuple[Running, ...] = ()
    """Who waits for it in the kernel."""
    rooted: tuple[Running, ...] | None = ()
    """Who else has a temp root on what it covers: builds that wait ask again every few seconds,
    and no table shows them. None where temp roots cannot be read."""
    covers: tuple[str, ...] = ()
    """Base names of the paths that it may cover."""
    deriver: Deriver | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What is looked at once: the table of locks, temp roots, and all names in the store."""

    store: Store
    store_fd: int
    names: tuple[str, ...]
    table: tuple[Flock, ...] | None
    roots: Mapping[str, list[str]] | None

    def locks_on(self, inode: int) -> tuple[Flock, ...] | None:
        """The flocks on that file, held and waited for; None where they cannot be seen."""
        if self.table is None:
            return None
        return tuple(lock for lock in self.table if lock.inode == inode)

    def rooted(self, paths: Iterable[StorePath]) -> tuple[int, ...] | None:
        """Pids with a temp root on one of those paths; None where that cannot be seen."""
        if self.roots is None:
            return None
        pids = [pid for path in paths for pid in self.roots.get(path.hash_part, ())]
        if not all(map(str.isdigit, pids)):
            return None  # no Nix up to 2.34 names its file otherwise
        return tuple(dict.fromkeys(map(int, pids)))


def look_at_locks(store: Store, store_fd: int) -> Around:
    """See it all now. No lock is tried, nothing is written."""
    table = None if store.apart() else flocks()
    inodes = None if table is None else exclusive_holders(table)
    return Around(
        store, store_fd, tuple(list_names(store_fd)), table, temp_roots(store.state_dir, inodes)
    )


def store_lock(around: Around, name: str) -> LockFile | None:
    """The lock file of that base name in the store; None where there is none."""
    try:
        entry = look(around.store_fd, name)
    except OSError:
        return _unseen(around, name)
    if entry is None or not stat.S_ISREG(entry.mode):
        return None
    covered = tuple(covered_paths(name, around.store.store_dir))
    store = around.store
    # What the database knows is enough: the other locks name their derivation.
    origins = origins_of(store, around.store_fd, covered, ())
    deriver = locked_by(around.store_fd, name, origins, store.store_dir)
    lock = _lock_file(around, around.store.store_dir.join(name), entry, Role.STORE)
    wanted = (*covered, deriver.derivation) if deriver else covered
    pids = around.rooted(wanted)
    holders = {one.pid for one in lock.holders}
    rooted = None if pids is None else tuple(running(p) for p in pids if p not in holders)
    names = tuple(path.base_name for path in covered)
    return replace(lock, rooted=rooted, covers=names, deriver=deriver)


def _unseen(around: Around, name: str) -> LockFile:
    path = around.store.store_dir.join(name)
    return LockFile(path, Role.STORE, None, None, Known.UNKNOWN)


def state_lock(around: Around, name: str) -> LockFile | None:
    """The lock file of that name below the state directory; None where there is none."""
    path = f"{around.store.state_dir}/{name}"
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        return LockFile(path, _role(name), None, None, Known.UNKNOWN)
    return _lock_file(around, path, entry_of(name, found), _role(name))


def all_locks(around: Around) -> Iterator[LockFile]:
    """Every lock file of the store and its state: those in the store first."""
    store_uid = os.fstat(around.store_fd).st_uid
    for name in sorted(around.names):
        if not name.endswith(LOCK_SUFFIX) or not parse_lock_name(name):
            continue
        try:
            entry = look(around.store_fd, name)
        except OSError:
            yield _unseen(around, name)
            continue
        # An output may be called so too; Nix's own are the store owner's, 0600 (pathlocks.cc).
        if entry and entry.uid == store_uid and stat.S_IMODE(entry.mode) == 0o600:  # noqa: PLR2004 - a mode
            yield from filter(None, [store_lock(around, name)])
    top = escape(around.store.state_dir)
    for pattern in _BELOW_STATE:
        for path in sorted(glob(f"{top}/{pattern}")):
            name = path.removeprefix(f"{around.store.state_dir}/")
            yield from filter(None, [state_lock(around, name)])


def hidden_places(state_dir: str) -> list[str]:
    """The directories of lock files that this user may not list."""
    places = (f"{state_dir}/{name}" for name in ("userpool", "userpool2", "temproots", "profiles"))
    return [p for p in places if os.path.isdir(p) and not os.access(p, os.R_OK | os.X_OK)]


def _lock_file(around: Around, path: str, entry: Entry, role: Role) -> LockFile:
    seen = around.locks_on(entry.file_id.inode)
    if seen is None:
        return LockFile(path, role, entry.ctime, entry.size, Known.UNKNOWN)
    holders = [lock for lock in seen if not lock.waits]
    return LockFile(
        path,
        role,
        entry.ctime,
        entry.size,
        Known.YES if holders else Known.NO,
        shared=bool(holders) and not any(lock.exclusive for lock in holders),
        holders=tuple(running(pid) for pid in dict.fromkeys(lock.pid for lock in holders)),
        blocked=tuple(running(p) for p in dict.fromkeys(x.pid for x in seen if x.waits)),
    )


def _role(name: str) -> Role:
    match name.partition("/")[0]:
        case "userpool" | "userpool2":
            return Role.BUILD_USER
        case "temproots":
            return Role.TEMP_ROOTS
        case "profiles":
            return Role.PROFILE
        case "db":
            return Role.DATABASE
        case _:
            return Role.COLLECTOR
