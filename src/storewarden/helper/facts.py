# SPDX-License-Identifier: MIT
"""All claims on one entry, asked in order, under the locks that this takes and leaves held."""

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from storewarden.helper import claims
from storewarden.helper.claims import HeldLock
from storewarden.helper.survey import Survey
from storewarden.host import mounts, processes_inside
from storewarden.store.database import connect, registered
from storewarden.store.derivations import chroot_locks
from storewarden.store.entries import Entry, EntryKind, look
from storewarden.store.errors import StoreUnreadableError
from storewarden.store.paths import StorePath, covered_paths, output_lock, path_lock
from storewarden.store.store import Store
from storewarden.store.verdict import NO, PROOF, Claim, Fact, Facts, Known

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
    held: list[HeldLock] = []
    asked: dict[Claim, Ask] = {
        Claim.VALID_TO_NIX: lambda: survey.nix.get(path, Fact(Known.UNKNOWN)),
        Claim.TOO_YOUNG: lambda: _too_young(entry, store.min_age),
        Claim.SHARED: lambda: _shared(entry, survey, path),
        Claim.COVERS: lambda: _covers(store, store_fd, entry),
        Claim.MOUNT: lambda: _mounted(store, store_fd, entry),
        Claim.COLLECTOR: lambda: claims.hold_collector(locks, store.state_dir),
        Claim.USER_LOCK: lambda: claims.hold_user(
            locks, store.state_dir, entry.uid, store.build_users
        ),
        Claim.PATH_LOCK: lambda: (
            (kind is EntryKind.OUTPUT and claims.hold_planted(locks, store_fd, entry))
            or _hold_path_locks(
                locks, held, store_fd, _lock_names(store, store_fd, survey, entry, kind), kind
            )
        ),
        Claim.PROCESS: lambda: _running(store, entry.uid),
        Claim.INSIDE: lambda: inside(store, store_fd, entry),
        Claim.TEMP_ROOT: lambda: _rooted(store, survey, path),
        Claim.VALID_IN_DATABASE: lambda: in_database(store, path),
        Claim.CHANGED: lambda: _changed(store_fd, entry),
    }
    facts: dict[Claim, Fact] = {}
    for claim, ask in asked.items():
        if claim in PROOF.get(kind, ()):
            facts[claim] = ask()
            if facts[claim].known is not Known.NO:
                break
    return Proof(facts, tuple(held))


def in_database(store: Store, path: StorePath) -> Fact:
    """Whether the database has the path as valid, by a connection opened for this question."""
    try:
        with connect(store.state_dir) as connection:
            return Fact(registered(connection, store.store_dir, path))
    except StoreUnreadableError as cause:
        return Fact(Known.UNKNOWN, str(cause))


def _too_young(entry: Entry, min_age: float) -> Fact:
    age = time.time() - entry.ctime
    # A time in the future means that the clock was set: too young, until it has caught up.
    if age < min_age:
        when = f"{int(age)} s ago" if age >= 0 else "in the future"
        return Fact(Known.YES, f"{when}, {min_age:g} s are wanted")
    return NO


def _shared(entry: Entry, survey: Survey, path: StorePath) -> Fact:
    """A build that no lock name leads to could be writing into what is open to others."""
    if entry.open_to_others and path not in survey.derivers:
        return Fact(Known.YES, f"mode {stat.S_IMODE(entry.mode):04o}")
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
    store: Store, store_fd: int, survey: Survey, entry: Entry, kind: EntryKind
) -> tuple[str, ...] | None:
    """The locks that cover an entry, sorted as pathlocks.cc takes them; None: cannot be told."""
    path = StorePath(entry.base_name)
    deriver = survey.derivers.get(path)
    match kind:
        case EntryKind.LOCK:
            return (entry.base_name,)
        case EntryKind.CHROOT:
            return chroot_locks(store_fd, entry.base_name, store.store_dir)
        case _ if deriver is None:
            return (path_lock(path),)
        case _:
            covering = output_lock(deriver.derivation, deriver.output)
            return tuple(sorted((path_lock(path), covering)))


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


def _running(store: Store, uid: int) -> Fact:
    pids = store.processes_of(store.build_users.under_lock_of(uid))
    if pids is None:
        return Fact(Known.UNKNOWN)
    return Fact(Known.YES, f"process {pids[0]}") if pids else NO


def _rooted(store: Store, survey: Survey, path: StorePath) -> Fact:
    deriver = survey.derivers.get(path)
    # A chroot has the hash part of its derivation, as the collector knows too.
    paths = (path,) if deriver is None else (path, deriver.derivation)
    return claims.rooted(claims.temp_roots(store.state_dir, store.store_dir), paths)


def _changed(store_fd: int, entry: Entry) -> Fact:
    now = look(store_fd, entry.base_name)
    return NO if now is not None and now == entry else Fact(Known.YES)
