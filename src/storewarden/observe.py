# SPDX-License-Identifier: MIT
"""What an ordinary user can see of a store and of what claims its entries, each thing once.

No lock is tried here, not even for an instant: a builder would have to wait for it. Nothing is
written. What cannot be seen is unknown, and never taken for absent.
"""

import functools
import os
import shlex
import shutil
import socket
import sqlite3
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

from storewarden import host
from storewarden.claims import Claim, Facts, proof_of
from storewarden.config import Config
from storewarden.errors import StoreUnreadableError, reason_of
from storewarden.readable import ThisStore, typed
from storewarden.store.database import DatabaseUnseenError, Outputs, connect, registered
from storewarden.store.derivation import find_origins
from storewarden.store.entries import (
    LINKS,
    Entry,
    EntryKind,
    look,
    open_directory,
    opened_anew,
)
from storewarden.store.nix import Nix, ask, find_nix
from storewarden.store.paths import Origin, StoreDir, StorePath, path_lock
from storewarden.store.store import NO, UNKNOWN, Fact, Known, Store, build_users

Asking = Callable[[int, int], None]
"""Takes how many paths Nix has been asked about, and of how many."""
_BATCH = 200
"""Paths that Nix is asked about at once."""
_HELLO = struct.pack("<4Q", 0x6E697863, 0x115, 0, 0)
"""All that a client of protocol 1.21 says before it asks for anything (worker-protocol.hh)."""
_GREETING_SECONDS = 1.0
"""For which nix-daemon's answer is waited for."""
_TRIES, _AGAIN_SECONDS = 5, 0.05
"""How often the database is tried where a worker of nix-daemon has it open for us, and after which
pause: a collector that ends at that moment closes it under our hands."""

_ROWS = 500
"""Of the database at a time: enough of them that a call costs nothing beside its rows, and so few
that none of them lives when Python looks for garbage, as it does after 700 new tuples."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file that covers an entry, or is it, and who holds it as far as can be seen."""

    base_name: str
    held: Known
    pid: int | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Unregistered:
    """An entry that is not registered, with what has been found out about it among all others."""

    entry: Entry
    kind: EntryKind
    origin: Origin | None
    covering: tuple[str, ...] | None
    """The locks that whoever may write there holds; None where they cannot be known."""
    valid_to_nix: Fact = UNKNOWN
    valid_in_database: Fact = UNKNOWN
    covers: Fact = NO
    """Of a lock file: whether it covers what is kept, or what may be there."""


class Observation:
    """A store at one moment: what is asked for is looked at when it is first asked for, and once.

    So the order in which things are asked for is the order in which they were seen.
    """

    def __init__(self, store: Store, store_fd: int, opened: ExitStack) -> None:
        """Look at nothing yet. `opened` ends the connection to the database."""
        self.store, self.store_fd = store, store_fd
        self.store_uid = os.fstat(store_fd).st_uid
        self._opened = opened
        self._connection: sqlite3.Connection | None = None
        self._unseen: DatabaseUnseenError | None = None
        self._valid_to_nix: dict[StorePath, Fact] = {}
        self._origins: dict[bool, dict[StorePath, Origin | None]] = {}
        self._running: dict[str, list[int] | None] = {}
        self._everyone = _Uids(store.build_users.everyone)

    # The store directory, and who says what of it.

    @functools.cached_property
    def names(self) -> list[str]:
        """Every name in the store directory but `.links`."""
        return list_names(self.store_fd)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The one connection to Nix's database; errors as of `store.database.connect`.

        Also an error of SQLite's within the block becomes one of those.
        """
        if self._unseen is not None:
            raise self._unseen
        try:
            if self._connection is None:
                self._connection = _connect_readable(self.store, self._opened)
            yield self._connection
        except DatabaseUnseenError as cause:
            self._unseen = cause
            raise
        except (sqlite3.Error, UnicodeDecodeError) as cause:
            self._connection = None
            # connect() waits in there to say what is wrong.
            self._opened.__exit__(type(cause), cause, cause.__traceback__)
            raise

    def check_place(self) -> None:
        """`StoreUnreadableError` for a store that is `misplaced`.

        Where the database cannot be read, that is said where it is needed.
        """
        why = ""
        with suppress(StoreUnreadableError), self.database() as connection:
            why = _misplaced(connection, self.store.state_dir, self.store.store_dir)
        if why:
            raise StoreUnreadableError(why)

    def registered_among(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that the database has as valid."""
        paths = [path for name in names if (path := StorePath.maybe(name)) is not None]
        if not paths:
            return []
        with self.database() as connection:
            store_dir = self.store.store_dir
            return [path.base_name for path in paths if registered(connection, store_dir, path)]

    def valid_to_nix(self, paths: Collection[StorePath]) -> dict[StorePath, Fact]:
        """Of each of those paths, whether Nix has it as valid."""
        if new := [path for path in paths if path not in self._valid_to_nix]:
            self._valid_to_nix |= self.store.ask_nix(new)
        return {path: self._valid_to_nix.get(path, UNKNOWN) for path in paths}

    def origins(
        self, paths: Collection[StorePath], *, by_names: bool = True
    ) -> dict[StorePath, Origin]:
        """As `find_origins`, of what this user can read of the database, and by the names here."""
        found = self._origins.setdefault(by_names, {})
        if new := [path for path in paths if path not in found]:
            names = self.names if by_names else ()
            try:
                with self.database() as connection:
                    outputs = Outputs(connection, self.store.store_dir)
                    fresh = find_origins(self.store, self.store_fd, new, names, outputs)
                    connection.text_factory = str  # Outputs has one that takes any bytes
            except DatabaseUnseenError:
                fresh = find_origins(self.store, self.store_fd, new, names, None)
            found |= dict.fromkeys(new) | fresh
        return {path: origin for path in paths if (origin := found[path]) is not None}

    # What lives: locks, processes, temp roots, mounts.

    @functools.cached_property
    def now(self) -> float:
        """Unix time, when an age is first asked for: nothing that was seen has changed later."""
        return time.time()

    @functools.cached_property
    def flocks(self) -> tuple[host.Flock, ...] | None:
        """Every flock; None where they cannot be seen, as where nix-daemon runs apart.

        The table leaves out what processes of other pid namespaces hold.
        """
        return None if self.store.apart() else host.flocks()

    @functools.cached_property
    def holders(self) -> Mapping[int, int] | None:
        """By inode the pid that holds its flock exclusively."""
        return None if self.flocks is None else host.exclusive_holders(self.flocks)

    @functools.cached_property
    def mounts(self) -> list[host.Mount] | None:
        """Every mount; None where one cannot be told."""
        return host.mounts()

    @functools.cached_property
    def temp_roots(self) -> Mapping[str, list[str]] | None:
        """By hash part of a live temp root the pids that hold it; None if one cannot be read."""
        try:
            found = self.store.temp_roots(self._is_held)
        except OSError:
            return None
        roots: dict[str, list[str]] = {}
        for path, pids in found.items():
            roots.setdefault(path.hash_part, []).extend(pids)
        return roots

    def _is_held(self, fd: int) -> bool:
        """Whether somebody holds the lock of that open file; `OSError` where that is not seen."""
        if self.holders is None:
            raise OSError("locks cannot be seen")
        return os.fstat(fd).st_ino in self.holders

    def rooted(self, paths: Iterable[StorePath]) -> tuple[int, ...] | None:
        """Pids with a temp root on one of those paths; None where that cannot be seen."""
        if self.temp_roots is None:
            return None
        pids = [pid for path in paths for pid in self.temp_roots.get(path.hash_part, ())]
        if not all(map(str.isdigit, pids)):
            return None  # no Nix up to 2.34 names its file otherwise
        return tuple(dict.fromkeys(map(int, pids)))

    @functools.cached_property
    def builders(self) -> list[int] | None:
        """Pids that run as any build user; None where some cannot be seen."""
        return self.store.processes_of(self._everyone)

    def running_as(self, uid: int) -> list[int] | None:
        """Pids of a build that may run under the lock of that uid; None where some are not seen.

        The one walk over all processes tells as whom none runs; for others there is another walk.
        """
        users, met = self.store.build_users, self._everyone.met
        seen = self.builders is not None and not users.is_stranger(uid)
        if seen and (not self.builders or (met and met.isdisjoint(users.under_lock_of(uid)))):
            return []
        slot = users.user_lock(uid)
        if slot not in self._running:
            self._running[slot] = self.store.processes_of(users.under_lock_of(uid))
        return self._running[slot]

    # What follows for one entry.

    def locks(self, entry: Entry, covering: tuple[str, ...] | None) -> tuple[Lock, ...]:
        """Those of its locks that are there, and who holds them."""
        return self._present(own_lock(entry) if covering is None else covering)

    def facts(self, it: Unregistered) -> Facts:
        """What the proof needs; and its age, if somebody asks for one."""
        needed = {*proof_of(it.kind, it.origin)}
        if self.store.min_age is not None:
            needed.add(Claim.TOO_YOUNG)
        return {claim: probe(self, it) for claim, probe in PROBES.items() if claim in needed}

    def at_work_on(self, entry: Entry, covering: tuple[str, ...] | None) -> frozenset[int] | None:
        """Whose end may leave it dead, if somebody is plainly at work on it; else None.

        Cheap enough for every second. `covering` are the locks that cover it, beside its own; None
        where they cannot be known. Empty where somebody is, and cannot be named.
        """
        users = self.store.build_users
        holders = self.holders_of((*own_lock(entry), *(covering or ())))
        if (pid := (self.holders or {}).get(entry.file_id.inode)) is not None:
            holders |= {pid}
        if holders:
            return holders
        if covering is not None:
            return frozenset(self._orphans_of(entry) or ()) or None
        if users.own(entry.uid, entry.gid) and self._is_busy(entry.uid):
            return frozenset(self.running_as(entry.uid) or ())
        return None

    def holders_of(self, locks: Iterable[str]) -> frozenset[int]:
        """The pids that are seen to hold one of those lock files of the store."""
        found = set()
        for name in locks if self.holders else ():
            with suppress(OSError):
                lock = os.stat(name, dir_fd=self.store_fd, follow_symlinks=False)
                found.add(self.holders.get(lock.st_ino) if self.holders else None)
        return frozenset(pid for pid in found if pid is not None)

    def held_below_state(self, name: str) -> Fact:
        """Whether somebody holds the lock file of that name below the state directory."""
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

    def user_lock_of(self, uid: int) -> Fact:
        """Whether the lock of that build user is held."""
        if uid == self.store.hidden_uid:
            return UNKNOWN
        return self.held_below_state(self.store.build_users.user_lock(uid))

    def orphan_of(self, entry: Entry) -> Fact:
        """As the helper sees it (helper/hold.py), of what runs now."""
        pids = self._orphans_of(entry)
        return UNKNOWN if pids is None else _by_first(pids)

    def _orphans_of(self, entry: Entry) -> list[int] | None:
        """The first of them, if there is one; None where that cannot be seen."""
        users = self.store.build_users
        if entry.uid == self.store_uid and not users.own(entry.uid, entry.gid):
            return []
        if entry.uid == self.store.hidden_uid:
            return None
        pids = self.running_as(entry.uid)
        lock = f"{self.store.state_dir}/{users.user_lock(entry.uid)}"
        return None if pids is None else host.orphans(lock, pids)

    def _is_busy(self, uid: int) -> bool:
        """Whether a build is seen to use that build user, or a process to run as it."""
        if uid == self.store.hidden_uid:
            return False  # whoever it is
        return self.user_lock_of(uid).known is Known.YES or bool(self.running_as(uid))

    def _present(self, names: Iterable[str]) -> tuple[Lock, ...]:
        return tuple(lock for name in names if (lock := self._lock(name)) is not None)

    def _lock(self, name: str) -> Lock | None:
        try:
            found = look(self.store_fd, name)
        except OSError:
            return Lock(name, Known.UNKNOWN)
        if found is None:
            return None
        if self.holders is None:
            return Lock(name, Known.UNKNOWN)
        pid = self.holders.get(found.file_id.inode)
        if pid is None:
            return Lock(name, Known.NO)
        return Lock(name, Known.YES, pid, _command_of(pid))


@contextmanager
def observe(store: Store) -> Iterator[Observation]:
    """Look at that store; `StoreUnreadableError` where its directory cannot be looked at."""
    store_fd = open_directory(store.view)
    try:
        with ExitStack() as opened:
            yield Observation(store, store_fd, opened)
    except OSError as cause:
        reason = os.strerror(cause.errno or 0).lower()
        raise StoreUnreadableError(f"cannot look at {store.view}: {reason}") from cause
    finally:
        os.close(store_fd)


def own_lock(entry: Entry) -> tuple[str, ...]:
    """The name of the lock of that path itself; none of what is no store path."""
    return () if (path := entry.store_path) is None else (path_lock(path),)


def list_names(store_fd: int) -> list[str]:
    """Every name in the store directory but `.links`."""
    try:
        with opened_anew(store_fd) as fd:
            names = os.listdir(fd)
    except OSError as cause:
        reason = reason_of(cause)
        raise StoreUnreadableError(f"cannot list the store directory: {reason}") from cause
    with suppress(ValueError):
        names.remove(LINKS)
    return names


def registered_bytes(store: Store) -> int | None:
    """What all valid paths take, as they are registered; None where this user cannot see that."""
    try:
        with connect(store.state_dir) as connection:
            (total,) = connection.execute("SELECT sum(narSize) FROM ValidPaths").fetchone()
        return int(total or 0)
    except (StoreUnreadableError, OverflowError):  # the latter of what is damaged
        return None


def unregistered_names(
    connection: sqlite3.Connection, store_dir: StoreDir, names: Collection[str]
) -> tuple[set[str], int, list[str]]:
    """Those of `names` that are no valid path's; how many paths are valid; whose name is missing.

    About 0.2 s for 200,000, as long as SQLite and the set take: no row is looked at by itself, and
    none is kept.
    """
    rest, count = set(names), 0
    absent: list[str] = []
    for valid in _valid_names(connection, store_dir):
        count += len(valid)
        rest.difference_update(valid)
    if count != len(names) - len(rest):
        here = set(names)
        for valid in _valid_names(connection, store_dir):
            absent += [name for name in valid if name not in here]
    return rest, count, absent


def _valid_names(connection: sqlite3.Connection, store_dir: StoreDir) -> Iterator[list[str]]:
    """The names of all valid paths in that store directory, some hundred at a time."""
    # "0" is the character after "/".
    first, after = f"{store_dir.path}/", f"{store_dir.path}0"
    query, start = "SELECT path FROM ValidPaths WHERE path > ? AND path < ?", len(first)
    cursor = connection.execute(query, (first, after))
    while rows := cursor.fetchmany(_ROWS):
        try:
            names = [path[start:] for (path,) in rows]
            "".join(names)  # raises where one is no text, as in a damaged database
        except TypeError:
            raise sqlite3.DatabaseError("a path in it is no text") from None
        yield names


def misplaced(state_dir: str, store_dir: StoreDir) -> str:
    """Why that database is of no use for that directory; empty if it is, or cannot be read.

    Nix's `local?root=DIR` has /nix/store in its database and below DIR on disk. By names nothing
    there is registered, so all of it would look stranded.
    """
    try:
        with connect(state_dir) as connection:
            return _misplaced(connection, state_dir, store_dir)
    except StoreUnreadableError:
        return ""  # which is said where it is needed


def _misplaced(connection: sqlite3.Connection, state_dir: str, store_dir: StoreDir) -> str:
    here = next(_valid_names(connection, store_dir), None)
    any_path = connection.execute("SELECT path FROM ValidPaths LIMIT 1").fetchone()
    if here or not any_path:
        return ""
    elsewhere = str(any_path[0]).rpartition("/")[0]
    return (
        f"the database in {state_dir} has its paths in {elsewhere}, and none in {store_dir.path}:"
        " is --state-dir the one of this store? If this is a chroot store (local?root=...): a store"
        " that lies elsewhere than its paths say is not supported"
    )


@contextmanager
def database_kept_open(store: Store) -> Iterator[bool]:
    """While inside, an ordinary user is a client of nix-daemon, if it lets them: gives whether.

    Before Nix 2.22 they can read the database only while some Nix process has it open, as those
    that build or collect have, on and off. A worker has it for as long as its client is connected:
    it opens the store before it reads what the client says (daemon.cc, 2.8.1, 2.26.3 and 2.34.6).
    """
    answered = False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        if os.geteuid() != 0:
            client.settimeout(_GREETING_SECONDS)
            with suppress(OSError):
                client.connect(f"{store.state_dir}/daemon-socket/socket")
                client.sendall(_HELLO)
                answered = bool(client.recv(1))
        yield answered


def _connect_readable(store: Store, opened: ExitStack) -> sqlite3.Connection:
    """A connection that can be read from, as it has been once; it ends with `opened`.

    From then on it is what keeps the database open, so the worker is let go.
    """
    for tries_left in reversed(range(_TRIES)):
        kept_open = False
        try:
            with ExitStack() as attempt, database_kept_open(store) as kept_open:
                connection = attempt.enter_context(connect(store.state_dir))
                connection.execute("SELECT 1 FROM ValidPaths LIMIT 1").fetchone()
                opened.push(attempt.pop_all())
                return connection
        except DatabaseUnseenError as cause:
            passing = isinstance(cause.__cause__, sqlite3.Error)
            if not (passing and kept_open and tries_left):
                raise
            time.sleep(_AGAIN_SECONDS)
    raise AssertionError("the last try ends in an answer or an error")


@dataclass(frozen=True, slots=True)
class _Uids(Collection[int]):
    """Several collections of uids as one: some are ranges of millions."""

    parts: tuple[Collection[int], ...]
    met: set[int] = field(default_factory=set)
    """Those of them that were asked for: as a walk over processes comes by who is at work."""

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int) or not any(uid in part for part in self.parts):
            return False
        self.met.add(uid)
        return True

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def _path_lock(seen: Observation, it: Unregistered) -> Fact:
    locks = seen.locks(it.entry, it.covering)
    for lock in locks:
        if lock.held is Known.YES:
            by = _process_text(lock.pid) if lock.pid else "a process"
            return Fact(Known.YES, f"{lock.base_name} by {by}")
    if it.kind is EntryKind.CHROOT and it.covering is None:
        return Fact(Known.UNKNOWN, "its derivation is not there to tell which")
    all_free = seen.holders is not None and all(lock.held is Known.NO for lock in locks)
    return NO if all_free else UNKNOWN


def _process(seen: Observation, it: Unregistered) -> Fact:
    uid = it.entry.uid
    pids = None if uid in {0, seen.store.hidden_uid} else seen.running_as(uid)
    return UNKNOWN if pids is None else _by_first(pids)


def _shared(seen: Observation, it: Unregistered) -> Fact:
    """Whether another build user than its owner, who may write to it, is at work."""
    if not it.entry.open_to_others:
        return NO
    own = None if it.entry.uid in {0, seen.store.hidden_uid} else seen.running_as(it.entry.uid)
    if own is None or seen.builders is None:
        return UNKNOWN
    return _by_first(sorted(set(seen.builders).difference(own)))


def _temp_root(seen: Observation, it: Unregistered) -> Fact:
    path, roots = it.entry.store_path, seen.temp_roots
    if roots is None or path is None:
        return UNKNOWN
    for rooted in (path, *(it.origin.rooted if it.origin else ())):
        if rooted.hash_part in roots:
            return Fact(Known.YES, f"process {roots[rooted.hash_part][-1]}")
    return NO


def _inside(seen: Observation, it: Unregistered) -> Fact:
    if seen.store.apart():
        return UNKNOWN
    place = seen.store.store_dir.join(it.entry.base_name)
    pids = host.processes_inside(place, {it.entry.file_id})
    return UNKNOWN if pids is None else _by_first(pids)


def _too_young(seen: Observation, it: Unregistered) -> Fact:
    age = seen.now - it.entry.ctime
    if age >= seen.store.least_age:
        return NO
    if age >= 0:
        return Fact(Known.YES, f"{int(age)} s ago; waiting until {seen.store.least_age:g} s old")
    place = shlex.quote(seen.store.store_dir.join(it.entry.base_name))
    cure = typed(f"if the clock is right now: sudo touch -h {place}")
    year = time.gmtime(it.entry.ctime).tm_year
    return Fact(Known.YES, f"by the clock in {year}, in the future; {cure}")


def _mount(seen: Observation, it: Unregistered) -> Fact:
    if seen.mounts is None:
        return UNKNOWN
    place = seen.store.store_dir.join(it.entry.base_name)
    return Fact(Known.YES) if any(mount.is_within(place) for mount in seen.mounts) else NO


def _by_first(pids: Sequence[int]) -> Fact:
    """Yes, with the first of those processes; no where there is none."""
    return Fact(Known.YES, _process_text(pids[0])) if pids else NO


def _command_of(pid: int) -> str | None:
    from storewarden.processes import command_of  # noqa: PLC0415 - psutil, where something lives

    return command_of(pid)


def _process_text(pid: int) -> str:
    command = _command_of(pid)
    return f"process {pid}, {command}" if command else f"process {pid}"


PROBES: Mapping[Claim, Callable[[Observation, Unregistered], Fact]] = {
    Claim.VALID_TO_NIX: lambda _, it: it.valid_to_nix,
    Claim.VALID_IN_DATABASE: lambda _, it: it.valid_in_database,
    Claim.CHANGED: lambda _seen, _it: NO,
    Claim.TOO_YOUNG: _too_young,
    Claim.COLLECTOR: lambda seen, _: seen.held_below_state("gc.lock"),
    Claim.PATH_LOCK: _path_lock,
    Claim.USER_LOCK: lambda seen, it: seen.user_lock_of(it.entry.uid),
    Claim.PROCESS: _process,
    Claim.ORPHAN: lambda seen, it: seen.orphan_of(it.entry),
    Claim.TEMP_ROOT: _temp_root,
    Claim.MOUNT: _mount,
    Claim.SHARED: _shared,
    Claim.COVERS: lambda _, it: it.covers,
    Claim.INSIDE: _inside,
}
"""How an ordinary user looks for each claim. The helper has probes of its own (helper/)."""


def open_store(config: Config, asking: Asking = lambda _asked, _all: None) -> Store:
    """The store that the configuration names, with its build users as they are now.

    `asking` is called before each batch of paths that Nix is asked about.
    """
    # Asked late, and once: to connect has the daemon open and close its database, which between
    # the two an ordinary user may not be able to read (before Nix 2.22).
    apart = functools.cache(lambda: _apart(config.state_dir))
    nix = open_nix(config)
    allocated = (host.FIRST_ALLOCATED, host.ALLOCATED, host.PER_SLOT)
    return Store(
        store_dir=config.store_dir,
        state_dir=config.state_dir,
        build_users=build_users(config.build_group, allocated),
        ask_nix=lambda paths: ask_in_batches(nix, paths, asking),
        processes_of=lambda uids: None if apart() else _processes_of(uids),
        min_age=config.min_age,
        view=config.store_dir.path,
        hidden_uid=host.hidden_uid(),
        apart=apart,
    )


def _processes_of(uids: Collection[int]) -> list[int] | None:
    if os.geteuid() == 0:
        return host.processes_of(uids)  # root's witness needs no third party's code
    from storewarden.processes import processes_of  # noqa: PLC0415 - psutil, where one looks

    return processes_of(uids)


def ask_in_batches(nix: Nix, paths: Sequence[StorePath], asking: Asking) -> dict[StorePath, Fact]:
    """As `ask`; `asking` is called before each batch, and what it raises ends that."""
    answers: dict[StorePath, Fact] = {}
    for start in range(0, len(paths), _BATCH):
        asking(start, len(paths))
        began = time.monotonic()
        batch = ask(nix, paths[start : start + _BATCH])
        answers |= batch
        silent = next((fact for fact in batch.values() if fact.known is Known.UNKNOWN), None)
        if silent is not None and time.monotonic() - began >= nix.timeout:
            # One wait is enough: what hangs now would hang for every batch to come.
            return answers | dict.fromkeys(paths[start + _BATCH :], silent)
    return answers


def open_nix(config: Config) -> Nix:
    """The Nix to ask. Root runs none but the configured one, or one of the usual places."""
    program = config.nix or (None if os.geteuid() == 0 else shutil.which("nix"))
    return Nix(find_nix(program), config.store_dir, config.state_dir)


def _apart(state_dir: str) -> bool:
    """Whether nix-daemon runs in a pid namespace that cannot be seen from here."""
    try:
        found = host.listener(f"{state_dir}/daemon-socket/socket")
    except OSError:
        return False  # then Nix cannot be asked either, which keeps everything
    return found is not None and found[1] is None


def this_store(config: Config) -> ThisStore:
    """The store that commands to copy are about."""
    return ThisStore(config.store_dir.path, config.state_dir)
