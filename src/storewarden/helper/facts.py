# SPDX-License-Identifier: MIT
"""All claims on one entry, asked in order, under the locks that this takes and leaves held."""

import os
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass

from storewarden.helper import claims
from storewarden.helper.claims import HeldLock
from storewarden.helper.survey import Survey
from storewarden.host import mounts, orphans, processes_inside
from storewarden.store.database import connect, registered
from storewarden.store.derivation import chroot_locks
from storewarden.store.entries import Entry, EntryKind, look
from storewarden.store.errors import StoreUnreadableError
from storewarden.store.paths import Origin, StorePath, covered_paths, path_lock
from storewarden.store.store import Store
from storewarden.store.verdict import NO, Claim, Fact, Facts, Known, proof_of

Ask = Callable[[], Fact]


@dataclass(frozen=True, slots=True)
class Proof:
    """The facts about an entry as far as they were asked, and the path locks held meanwhile."""

    facts: Facts
    held: tuple[HeldLock, ...]


def hold_and_look(
    locks: ExitStack, store: Store, store_fd: int, survey: Survey, entry: Entry, kind: EntryKind
) -> Proof:
    """Ask for all claims on an entry of a kind that can be removed, taking its locks on the way.

    It stops at the first claim that holds or cannot be settled, so that no lock is touched
    without need. What is seen through locks comes first, what only holds under them last.
    """
    path = StorePath(entry.base_name)
    origin = survey.origins.get(path)
    held: list[HeldLock] = []
    asked: dict[Claim, Ask] = {
        Claim.VALID_TO_NIX: lambda: survey.nix.get(path, Fact(Known.UNKNOWN)),
        Claim.TOO_YOUNG: lambda: _too_young(entry, store.least_age),
        Claim.COVERS: lambda: _covers(store, store_fd, entry),
        Claim.MOUNT: lambda: _mounted(store, store_fd, entry),
        Claim.COLLECTOR: lambda: claims.hold_collector(locks, store.state_dir),
        Claim.USER_LOCK: lambda: claims.hold_user(
            locks, store.state_dir, entry.uid, store.build_users
        ),
        Claim.PATH_LOCK: lambda: (
            (kind is EntryKind.OUTPUT and claims.hold_planted(locks, store_fd, entry))
            or _hold_path_locks(
                locks, held, store_fd, _lock_names(store, store_fd, origin, entry, kind), kind
            )
        ),
        Claim.PROCESS: lambda: _running(store, store.build_users.under_lock_of(entry.uid)),
        Claim.SHARED: lambda: _shared(store, entry),
        Claim.ORPHAN: lambda: _orphan(store, store_fd, entry),
        Claim.INSIDE: lambda: inside(store, store_fd, entry),
        Claim.TEMP_ROOT: lambda: _rooted(store, origin, path),
        Claim.VALID_IN_DATABASE: lambda: in_database(store, path),
        Claim.CHANGED: lambda: _changed(store_fd, entry),
    }
    proof = proof_of(kind, origin)
    facts: dict[Claim, Fact] = {}
    for claim in (one for one in asked if one in proof):
        facts[claim] = asked[claim]()
        if facts[claim].known is not Known.NO:
            break
    return Proof(facts, tuple(held))


def in_database(store: Store, path: StorePath) -> Fact:
    """Whether the database has the path as valid, by a connection opened for this question."""
    try:
        with connect(store.state_dir) as connection:
            return Fact(Known.YES) if registered(connection, store.store_dir, path) else NO
    except StoreUnreadableError as cause:
        return Fact(Known.UNKNOWN, str(cause))


def _too_young(entry: Entry, min_age: float) -> Fact:
    age = time.time() - entry.ctime
    # A time in the future means that the clock was set: too young, until it has caught up.
    if age < min_age:
        when = f"{int(age)} s ago" if age >= 0 else "in the future"
        return Fact(Known.YES, f"{when}, {min_age:g} s are wanted")
    return NO


def _shared(store: Store, entry: Entry) -> Fact:
    """Whether a build user may be writing into what is open to others, and no known lock covers.

    A build that was alive before the survey has a temp root on its derivation, so that its locks
    were found; this is for one that has begun since. The owner has no process: that comes first.
    """
    if not entry.open_to_others:
        return NO
    for uids in store.build_users.everyone:
        running = _running(store, uids)
        if running.known is not Known.NO:
            return running
    return NO


def _covers(store: Store, store_fd: int, entry: Entry) -> Fact:
    """A lock file is the only thing that names the derivation of an output whose `.drv` is gone."""
    for path in covered_paths(entry.base_name, store.store_dir):
        if look(store_fd, path.base_name) is not None:
            valid = in_database(store, path)
            if valid.known is not Known.YES:
                return Fact(Known.YES, path.base_name)
    return NO


def _mounted(store: Store, store_fd: int, entry: Entry) -> Fact:
    seen = mounts()
    if seen is None:
        return Fact(Known.UNKNOWN)
    if os.fstat(store_fd).st_dev != entry.device:
        return Fact(Known.YES, "it is another file system")
    for directory in {store.store_dir.path, store.view}:
        place = f"{directory}/{entry.base_name}"
        for point, _ in seen:
            if point == place or point.startswith(f"{place}/"):
                return Fact(Known.YES)
    return NO


def _hold_path_locks(
    locks: ExitStack,
    held: list[HeldLock],
    store_fd: int,
    names: tuple[str, ...] | None,
    kind: EntryKind,
) -> Fact:
    if names is None:
        return Fact(Known.UNKNOWN, "its derivation is not there to tell which")
    for name in names:
        # A lock file is only ever taken if it is there; a build's lock is made like a build does.
        if kind is EntryKind.LOCK:
            lock = claims.hold_lock_file(locks, store_fd, name)
        else:
            lock = claims.hold_path(locks, store_fd, name)
        if lock is None:
            return Fact(Known.YES, "another one took its place")
        if isinstance(lock, Fact):
            return lock
        held.append(lock)
    return NO


def _lock_names(
    store: Store, store_fd: int, origin: Origin | None, entry: Entry, kind: EntryKind
) -> tuple[str, ...] | None:
    """The locks that cover an entry, sorted as pathlocks.cc takes them; None: cannot be told."""
    own = path_lock(StorePath(entry.base_name))
    match kind:
        case EntryKind.LOCK:
            return (entry.base_name,)
        case EntryKind.CHROOT:
            return chroot_locks(store_fd, entry.base_name, store.store_dir)
        case _:
            return tuple(sorted({own, *(origin.locks if origin else ())}))


def inside(store: Store, store_fd: int, entry: Entry) -> Fact:
    """Whether a process has its root or working directory in a chroot."""
    objects = {(entry.device, entry.inode)}
    try:
        root = os.stat(f"{entry.base_name}/root", dir_fd=store_fd, follow_symlinks=False)
        objects.add((root.st_dev, root.st_ino))
    except FileNotFoundError:
        pass  # before 2.25 or so the directory itself is the root
    except OSError:
        return Fact(Known.UNKNOWN)
    pids = processes_inside(store.store_dir.join(entry.base_name), objects)
    if pids is None:
        return Fact(Known.UNKNOWN)
    return Fact(Known.YES, f"process {pids[0]}") if pids else NO


def _running(store: Store, uids: Collection[int]) -> Fact:
    pids = store.processes_of(uids)
    if pids is None:
        return Fact(Known.UNKNOWN)
    return Fact(Known.YES, f"process {pids[0]}") if pids else NO


def _orphan(store: Store, store_fd: int, entry: Entry) -> Fact:
    """A process of its owner that no build of now has started: it may still write there.

    Nix kills every process of a uid when it takes the lock of that uid (2.8.1
    local-derivation-goal.cc, 2.26.3 and 2.34.6 likewise), so whatever descends from the holder of
    that lock belongs to another build, and cannot write here without one of the locks held here.
    """
    users = store.build_users
    if entry.uid == os.fstat(store_fd).st_uid and not users.own(entry.uid, entry.gid):
        return NO  # Nix had ended its builder, and all processes of that user, before it took it
    pids = store.processes_of(users.under_lock_of(entry.uid))
    if pids is None:
        return Fact(Known.UNKNOWN)
    left = orphans(f"{store.state_dir}/{users.user_lock(entry.uid)}", pids)
    return Fact(Known.YES, f"process {left[0]}") if left else NO


def _rooted(store: Store, origin: Origin | None, path: StorePath) -> Fact:
    # A chroot has the hash part of its derivation, as the collector knows too.
    paths = (path, *(origin.rooted if origin else ()))
    return claims.rooted(claims.temp_roots(store.state_dir, store.store_dir), paths)


def _changed(store_fd: int, entry: Entry) -> Fact:
    now = look(store_fd, entry.base_name)
    return NO if now is not None and now == entry else Fact(Known.YES)
