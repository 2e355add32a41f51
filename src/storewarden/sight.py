# SPDX-License-Identifier: MIT
"""What an ordinary user can see of the claims on entries, looked at once for a sweep."""

import os
import shlex
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from storewarden import host
from storewarden.claims import Claim, Facts, proof_of
from storewarden.processes import command_of
from storewarden.store.derivation import covering_locks
from storewarden.store.entries import Entry, EntryKind, look
from storewarden.store.fact import NO, UNKNOWN, Fact, Known
from storewarden.store.paths import Origin, StorePath, path_lock
from storewarden.store.store import Store


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file that covers an entry, or is it, and who holds it as far as can be seen."""

    base_name: str
    held: Known
    pid: int | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """Locks, processes, temp roots and mounts at one moment; None for what cannot be seen."""

    store: Store
    store_fd: int
    store_uid: int
    now: float
    holders: Mapping[int, int] | None
    """By inode, the pid that holds its flock."""
    running: Mapping[int, list[int] | None]
    """By uid, the pids that run as it."""
    roots: Mapping[str, list[str]] | None
    """By hash part of a temp root, the pids that hold it."""
    mounts: list[host.Mount] | None

    def covering(
        self, entry: Entry, kind: EntryKind, origin: Origin | None
    ) -> tuple[str, ...] | None:
        """The locks that whoever may write there holds; None where they cannot be known."""
        return covering_locks(self.store, self.store_fd, entry, kind, origin)

    def locks(self, entry: Entry, covering: tuple[str, ...] | None) -> tuple[Lock, ...]:
        """Those of its locks that are there, and who holds them."""
        path = entry.store_path
        own = (path_lock(path),) if path else ()
        return self._present(own if covering is None else covering)

    def facts(
        self, entry: Entry, kind: EntryKind, origin: Origin | None, covering: tuple[str, ...] | None
    ) -> Facts:
        """What the proof needs, but whether it is valid and what a lock file covers; and its age.

        Somebody may have asked for an age also where the proof needs none.
        """
        asked: dict[Claim, Callable[[], Fact]] = {
            Claim.CHANGED: lambda: NO,
            Claim.TOO_YOUNG: lambda: self._too_young(entry),
            Claim.COLLECTOR: lambda: self._held_below_state("gc.lock"),
            Claim.PATH_LOCK: lambda: self._path_lock(entry, kind, covering),
            Claim.USER_LOCK: lambda: self._user_lock(entry.uid),
            Claim.PROCESS: lambda: self._process(entry.uid),
            Claim.ORPHAN: lambda: self._orphan(entry),
            Claim.TEMP_ROOT: lambda: self._temp_root(entry, origin),
            Claim.MOUNT: lambda: self._mount(entry),
            Claim.SHARED: lambda: self._shared(entry),
            Claim.INSIDE: lambda: self._inside(entry),
        }
        needed = {*proof_of(kind, origin)}
        if self.store.min_age is not None:
            needed.add(Claim.TOO_YOUNG)
        return {claim: ask() for claim, ask in asked.items() if claim in needed}

    def is_alive(self, entry: Entry, covering: tuple[str, ...] | None) -> bool:
        """Whether somebody is plainly at work on it: cheap enough for every second.

        `covering` are the locks that cover it, beside its own; None where they cannot be known.
        """
        path, users = entry.store_path, self.store.build_users
        own = (path_lock(path),) if path else ()
        locks = self._present((*own, *(covering or ())))
        if entry.file_id.inode in (self.holders or ()) or any(
            lock.held is Known.YES for lock in locks
        ):
            return True
        if covering is None:
            return users.own(entry.uid, entry.gid) and self._user_is_busy(entry.uid)
        return self._orphan(entry).known is Known.YES

    def _present(self, names: Iterable[str]) -> tuple[Lock, ...]:
        return tuple(lock for name in names if (lock := self._lock_called(name)) is not None)

    def _user_is_busy(self, uid: int) -> bool:
        """Whether a build is seen to use that build user, or a process to run as it."""
        if uid == self.store.hidden_uid:
            return False  # whoever it is
        if self._user_lock(uid).known is Known.YES:
            return True
        return bool(self.store.processes_of(self.store.build_users.under_lock_of(uid)))

    def _lock_called(self, name: str) -> Lock | None:
        try:
            found = look(self.store_fd, name)
        except OSError:
            return Lock(name, Known.UNKNOWN)
        return None if found is None else self._lock(name, found.file_id.inode)

    def _lock(self, base_name: str, inode: int) -> Lock:
        if self.holders is None:
            return Lock(base_name, Known.UNKNOWN)
        pid = self.holders.get(inode)
        if pid is None:
            return Lock(base_name, Known.NO)
        return Lock(base_name, Known.YES, pid, command_of(pid))

    def _path_lock(self, entry: Entry, kind: EntryKind, covering: tuple[str, ...] | None) -> Fact:
        locks = self.locks(entry, covering)
        for lock in locks:
            if lock.held is Known.YES:
                by = _process_text(lock.pid) if lock.pid else "a process"
                return Fact(Known.YES, f"{lock.base_name} by {by}")
        if kind is EntryKind.CHROOT and covering is None:
            return Fact(Known.UNKNOWN, "its derivation is not there to tell which")
        told = self.holders is not None and all(lock.held is Known.NO for lock in locks)
        return NO if told else UNKNOWN

    def _user_lock(self, uid: int) -> Fact:
        if uid == self.store.hidden_uid:
            return UNKNOWN
        return self._held_below_state(self.store.build_users.user_lock(uid))

    def _held_below_state(self, name: str) -> Fact:
        try:
            inode = os.stat(f"{self.store.state_dir}/{name}", follow_symlinks=False).st_ino
        except FileNotFoundError:
            return NO  # what does not exist is not held
        except OSError:
            return UNKNOWN
        if self.holders is None:
            return UNKNOWN
        pid = self.holders.get(inode)
        return NO if pid is None else Fact(Known.YES, f"{name} by {_process_text(pid)}")

    def _process(self, uid: int) -> Fact:
        pids = self.running.get(uid)
        if pids is None:
            return UNKNOWN
        if not pids:
            return NO
        return Fact(Known.YES, _process_text(pids[0]))

    def _orphan(self, entry: Entry) -> Fact:
        """As the helper sees it (helper/hold.py), of what runs now."""
        users = self.store.build_users
        if entry.uid == self.store_uid and not users.own(entry.uid, entry.gid):
            return NO
        if entry.uid == self.store.hidden_uid:
            return UNKNOWN
        pids = self.store.processes_of(users.under_lock_of(entry.uid))
        lock = f"{self.store.state_dir}/{users.user_lock(entry.uid)}"
        if pids is None:
            return UNKNOWN
        left = host.orphans(lock, pids)
        return Fact(Known.YES, _process_text(left[0])) if left else NO

    def _shared(self, entry: Entry) -> Fact:
        """Whether another build user than its owner, who may write to it, is at work."""
        if not entry.open_to_others:
            return NO
        found = [self.store.processes_of(uids) for uids in self.store.build_users.everyone]
        own = self.running.get(entry.uid)
        if own is None or None in found:
            return UNKNOWN
        others = {pid for pids in found for pid in pids or ()}.difference(own)
        return Fact(Known.YES, _process_text(min(others))) if others else NO

    def _temp_root(self, entry: Entry, origin: Origin | None) -> Fact:
        path = entry.store_path
        if self.roots is None or path is None:
            return UNKNOWN
        for wanted in (path, *(origin.rooted if origin else ())):
            if wanted.hash_part in self.roots:
                return Fact(Known.YES, f"process {self.roots[wanted.hash_part][-1]}")
        return NO

    def _inside(self, entry: Entry) -> Fact:
        if self.store.apart():
            return UNKNOWN
        place = self.store.store_dir.join(entry.base_name)
        pids = host.processes_inside(place, {entry.file_id})
        if pids is None:
            return UNKNOWN
        return Fact(Known.YES, _process_text(pids[0])) if pids else NO

    def _too_young(self, entry: Entry) -> Fact:
        age = self.now - entry.ctime
        if age >= self.store.least_age:
            return NO
        wanted = f"{self.store.least_age:g} s are wanted"
        if age >= 0:
            return Fact(Known.YES, f"{int(age)} s ago, {wanted}")
        place = shlex.quote(self.store.store_dir.join(entry.base_name))
        cure = f"if the clock is right now: sudo touch -h {place}"
        year = time.gmtime(entry.ctime).tm_year
        return Fact(Known.YES, f"by the clock in {year}, in the future; {cure}")

    def _mount(self, entry: Entry) -> Fact:
        if self.mounts is None:
            return UNKNOWN
        place = self.store.store_dir.join(entry.base_name)
        inside = any(mount.is_within(place) for mount in self.mounts)
        return Fact(Known.YES) if inside else NO


def look_around(store: Store, store_fd: int, uids: Collection[int]) -> Sight:
    """See what can be seen now, for entries owned by those uids."""
    # The table of locks leaves out what other pid namespaces hold.
    table = None if store.apart() else host.flocks()
    holders = None if table is None else host.exclusive_holders(table)
    return Sight(
        store=store,
        store_fd=store_fd,
        store_uid=os.fstat(store_fd).st_uid,
        now=time.time(),
        holders=holders,
        running={
            uid: store.processes_of(store.build_users.under_lock_of(uid))
            for uid in uids
            if uid not in {0, store.hidden_uid}
        },
        roots=temp_roots(store.state_dir, holders),
        mounts=host.mounts(),
    )


def _process_text(pid: int) -> str:
    command = command_of(pid)
    return f"process {pid}, {command}" if command else f"process {pid}"


def temp_roots(state_dir: str, holders: Container[int] | None) -> dict[str, list[str]] | None:
    """By hash part of a live temp root, the pids that hold it; None if one cannot be read.

    `holders` has the inodes of all files whose lock is held: those are live. Root can read them.

    No lock is tried here: a sweep must not make a builder wait.
    """
    directory = f"{state_dir}/temproots"
    roots: dict[str, list[str]] = {}
    try:
        names = os.listdir(directory)
        if names and holders is None:
            return None
        for name in names:
            with suppress(FileNotFoundError), open(f"{directory}/{name}", "rb") as file:
                if os.fstat(file.fileno()).st_ino in (holders or ()):
                    for text in file.read().split(b"\0"):
                        path = StorePath.maybe(os.fsdecode(text).rpartition("/")[2])
                        if path is not None:
                            roots.setdefault(path.hash_part, []).append(name)
    except FileNotFoundError:
        return roots  # nobody ever had one
    except OSError:
        return None
    return roots
