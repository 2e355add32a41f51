# SPDX-License-Identifier: MIT
"""Nix's lock files: which there are, who holds them, who waits. Looked at; none is ever tried.

Even a flock that is tried for an instant could make a builder wait, so the table of the kernel is
all that is asked. Where it cannot be read, or shows another pid namespace, it is unknown.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from glob import escape, glob

from storewarden.observe import Observation
from storewarden.processes import Running, running
from storewarden.scan import locked_by
from storewarden.store.entries import Entry, entry_of, look
from storewarden.store.paths import LOCK_SUFFIX, Deriver, covered_paths, parse_lock_name
from storewarden.store.store import Known

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


def store_lock(seen: Observation, name: str) -> LockFile | None:
    """The lock file of that base name in the store; None where there is none."""
    try:
        entry = look(seen.store_fd, name)
    except OSError:
        return _unseen(seen, name)
    if entry is None or not stat.S_ISREG(entry.mode):
        return None
    covered = tuple(covered_paths(name, seen.store.store_dir))
    # What the database knows is enough: the other locks name their derivation.
    deriver = locked_by(seen, name, seen.origins(covered, by_names=False))
    lock = _lock_file(seen, seen.store.store_dir.join(name), entry, Role.STORE)
    pids = seen.rooted((*covered, deriver.derivation) if deriver else covered)
    holders = {one.pid for one in lock.holders}
    rooted = None if pids is None else tuple(running(p) for p in pids if p not in holders)
    names = tuple(path.base_name for path in covered)
    return replace(lock, rooted=rooted, covers=names, deriver=deriver)


def _unseen(seen: Observation, name: str) -> LockFile:
    path = seen.store.store_dir.join(name)
    return LockFile(path, Role.STORE, None, None, Known.UNKNOWN)


def state_lock(seen: Observation, name: str) -> LockFile | None:
    """The lock file of that name below the state directory; None where there is none."""
    path = f"{seen.store.state_dir}/{name}"
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        return LockFile(path, _role(name), None, None, Known.UNKNOWN)
    return _lock_file(seen, path, entry_of(name, found), _role(name))


def all_locks(seen: Observation) -> Iterator[LockFile]:
    """Every lock file of the store and its state: those in the store first."""
    for name in sorted(seen.names):
        if not name.endswith(LOCK_SUFFIX) or not parse_lock_name(name):
            continue
        try:
            entry = look(seen.store_fd, name)
        except OSError:
            yield _unseen(seen, name)
            continue
        # An output may be called so too; Nix's own are the store owner's, 0600 (pathlocks.cc).
        if entry and entry.uid == seen.store_uid and stat.S_IMODE(entry.mode) == 0o600:  # noqa: PLR2004 - a mode
            yield from filter(None, [store_lock(seen, name)])
    top = escape(seen.store.state_dir)
    for pattern in _BELOW_STATE:
        for path in sorted(glob(f"{top}/{pattern}")):
            name = path.removeprefix(f"{seen.store.state_dir}/")
            yield from filter(None, [state_lock(seen, name)])


def hidden_places(state_dir: str) -> list[str]:
    """The directories of lock files that this user may not list."""
    places = (f"{state_dir}/{name}" for name in ("userpool", "userpool2", "temproots", "profiles"))
    return [p for p in places if os.path.isdir(p) and not os.access(p, os.R_OK | os.X_OK)]


def _lock_file(seen: Observation, path: str, entry: Entry, role: Role) -> LockFile:
    if seen.flocks is None:
        return LockFile(path, role, entry.ctime, entry.size, Known.UNKNOWN)
    on_it = [lock for lock in seen.flocks if lock.inode == entry.file_id.inode]
    holders = [lock for lock in on_it if not lock.waits]
    return LockFile(
        path,
        role,
        entry.ctime,
        entry.size,
        Known.YES if holders else Known.NO,
        shared=bool(holders) and not any(lock.exclusive for lock in holders),
        holders=tuple(running(pid) for pid in dict.fromkeys(lock.pid for lock in holders)),
        blocked=tuple(running(p) for p in dict.fromkeys(x.pid for x in on_it if x.waits)),
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
