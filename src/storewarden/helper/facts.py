# SPDX-License-Identifier: MIT
"""All claims on one entry, asked in order, under the locks that this takes and leaves held."""

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from storewarden.claims import Claim, Facts, proof_of
from storewarden.errors import StoreUnreadableError
from storewarden.helper import claims
from storewarden.helper.claims import Ask, HeldLock
from storewarden.helper.survey import Survey
from storewarden.host import mounts, orphans, processes_inside
from storewarden.store.database import connect, registered
from storewarden.store.derivation import covering_locks
from storewarden.store.entries import Entry, EntryKind, look
from storewarden.store.fact import NO, UNKNOWN, Fact, Known
from storewarden.store.paths import Origin, StorePath, covered_paths, path_lock
from storewarden.store.store import Store


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
    one = _Witness(locks, store, store_fd, entry, kind, origin)
    asked: dict[Claim, Ask] = {
        Claim.VALID_TO_NIX: lambda: survey.nix.get(path, UNKNOWN),
        Claim.TOO_YOUNG: one.too_young,
        Claim.COVERS: one.covers,
        Claim.MOUNT: one.mounted,
        Claim.COLLECTOR: lambda: claims.hold_collector(locks, store.state_dir),
        Claim.USER_LOCK: one.hold_user,
        Claim.PATH_LOCK: one.hold_path_locks,
        Claim.PROCESS: one.running,
        Claim.SHARED: one.shared,
        Claim.ORPHAN: one.orphan,
        Claim.INSIDE: one.inside,
        Claim.TEMP_ROOT: one.rooted,
        Claim.VALID_IN_DATABASE: lambda: in_database(store, path),
        Claim.CHANGED: lambda: NO if look(store_fd, entry.base_name) == entry else Fact(Known.YES),
    }
    proof = proof_of(kind, origin)
    facts: dict[Claim, Fact] = {}
    for claim in (each for each in asked if each in proof):
        facts[claim] = claims.settle(asked[claim])
        if facts[claim].known is not Known.NO:
            break
    return Proof(facts, tuple(one.held))


def in_database(store: Store, path: StorePath) -> Fact:
    """Whether the database has the path as valid, by a connection opened for this question."""
    try:
        with connect(store.state_dir) as connection:
            return Fact(Known.YES) if registered(connection, store.store_dir, path) else NO
    except StoreUnreadableError as cause:
        return Fact(Known.UNKNOWN, str(cause))


@dataclass(frozen=True, slots=True)
class _Witness:
    """What root can see of the claims on one entry; each method settles one of them."""

    locks: ExitStack
    store: Store
    store_fd: int
    entry: Entry
    kind: EntryKind
    origin: Origin | None
    held: list[HeldLock] = field(default_factory=list)

    def too_young(self) -> Fact:
        age, least = time.time() - self.entry.ctime, self.store.least_age
        # A time in the future means that the clock was set: too young, until it has caught up.
        if age < least:
            when = f"{int(age)} s ago" if age >= 0 else "in the future"
            return Fact(Known.YES, f"{when}, {least:g} s are wanted")
        return NO

    def covers(self) -> Fact:
        """A lock file is all that names the derivation of an output whose `.drv` is gone."""
        for path in covered_paths(self.entry.base_name, self.store.store_dir):
            there = look(self.store_fd, path.base_name) is not None
            if there and in_database(self.store, path).known is not Known.YES:
                return Fact(Known.YES, path.base_name)
        return NO

    def mounted(self) -> Fact:
        seen = mounts()
        if seen is None:
            return UNKNOWN
        if os.fstat(self.store_fd).st_dev != self.entry.device:
            return Fact(Known.YES, "it is another file system")
        for directory in {self.store.store_dir.path, self.store.view}:
            place = f"{directory}/{self.entry.base_name}"
            if any(point == place or point.startswith(f"{place}/") for point, _ in seen):
                return Fact(Known.YES)
        return NO

    def hold_user(self) -> Fact:
        users, uid = self.store.build_users, self.entry.uid
        return claims.hold_user(self.locks, self.store.state_dir, uid, users)

    def hold_path_locks(self) -> Fact:
        entry = self.entry
        if self.kind is EntryKind.OUTPUT:
            planted = claims.hold_planted(self.locks, self.store_fd, entry)
            if planted is not None:
                return planted
        names = covering_locks(self.store, self.store_fd, entry, self.kind, self.origin)
        if names is None and self.kind is EntryKind.CHROOT:
            return Fact(Known.UNKNOWN, "its derivation is not there to tell which")
        # A lock file is only ever taken if it is there; a build's lock is made like a build does.
        hold = claims.hold_lock_file if self.kind is EntryKind.LOCK else claims.hold_path
        for name in names or (path_lock(StorePath(entry.base_name)),):
            lock = hold(self.locks, self.store_fd, name)
            if lock is None:
                return Fact(Known.YES, "another one took its place")
            if isinstance(lock, Fact):
                return lock
            self.held.append(lock)
        return NO

    def inside(self) -> Fact:
        """Whether a process has its root or working directory in a chroot."""
        entry = self.entry
        objects = {(entry.device, entry.inode)}
        with suppress(FileNotFoundError):  # before 2.25 or so the directory itself is the root
            root = os.stat(f"{entry.base_name}/root", dir_fd=self.store_fd, follow_symlinks=False)
            objects.add((root.st_dev, root.st_ino))
        return _alive(processes_inside(self.store.store_dir.join(entry.base_name), objects))

    def running(self) -> Fact:
        uids = self.store.build_users.under_lock_of(self.entry.uid)
        return _alive(self.store.processes_of(uids))

    def shared(self) -> Fact:
        """Whether a build user may be writing into what is open to others and nothing covers.

        A build that was alive before the survey has a temp root on its derivation, so that its
        locks were found; this is for one that has begun since. The owner's processes come first.
        """
        everyone = self.store.build_users.everyone if self.entry.open_to_others else ()
        found = (_alive(self.store.processes_of(uids)) for uids in everyone)
        return next((fact for fact in found if fact.known is not Known.NO), NO)

    def orphan(self) -> Fact:
        """A process of its owner that no other build has started: it may still write there.

        Nix kills every process of a uid when it takes the lock of that uid (2.8.1
        local-derivation-goal.cc, 2.26.3 and 2.34.6 likewise), so whatever descends from the holder
        of that lock belongs to another build, and cannot write here without a lock held here.
        """
        users, entry = self.store.build_users, self.entry
        if entry.uid == os.fstat(self.store_fd).st_uid and not users.own(entry.uid, entry.gid):
            return NO  # Nix had ended all processes of its build user before it made it its own
        pids = self.store.processes_of(users.under_lock_of(entry.uid))
        lock = f"{self.store.state_dir}/{users.user_lock(entry.uid)}"
        return _alive(None if pids is None else orphans(lock, pids))

    def rooted(self) -> Fact:
        # A chroot has the hash part of its derivation, as the collector knows too.
        own = StorePath(self.entry.base_name)
        paths = (own, *(self.origin.rooted if self.origin else ()))
        roots = claims.temp_roots(self.store.state_dir, self.store.store_dir)
        return claims.rooted(roots, paths)


def _alive(pids: list[int] | None) -> Fact:
    if pids is None:
        return UNKNOWN
    return Fact(Known.YES, f"process {pids[0]}") if pids else NO
