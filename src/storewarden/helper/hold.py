# SPDX-License-Identifier: MIT
"""What root alone can tell of an entry: by Nix's own locks, taken the Nix way, and under them.

No lock is ever waited for, and all are held until the caller's stack ends. Who cannot have one gets
a `NotHeldError`; what the system refuses is an `OSError`. `settle` makes facts of both. Read in
pathlocks.cc, user-lock.cc and gc.cc of Nix 2.8.1, 2.26.4 and 2.34.6.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from storewarden.claims import Claim, Facts, proof_of
from storewarden.errors import StoreUnreadableError, reason_of
from storewarden.helper.surroundings import check_file_system, check_namespace
from storewarden.host import holds, mounts, orphans, parent_of, processes_inside
from storewarden.protocol import RemoveRequest
from storewarden.store.database import Outputs, check_census, connect, registered, sample
from storewarden.store.derivation import covering_locks, find_origins, scratch_origin
from storewarden.store.entries import (
    BuildUsers,
    Entry,
    EntryKind,
    FileId,
    count_owned,
    each_name,
    look,
)
from storewarden.store.paths import (
    LOCK_SUFFIX,
    Deriver,
    Origin,
    StorePath,
    covered_paths,
    parse_lock_name,
    path_lock,
)
from storewarden.store.store import NO, UNKNOWN, YES, Fact, Known, Store

_ATTEMPTS = 8
_LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LOCK_MODE = 0o600
_DASH = 32


class NotHeldError(Exception):
    """A lock that is not ours: `fact` says that another holds it, or why that cannot be told."""

    def __init__(self, known: Known, detail: str) -> None:
        """What is known of who holds it."""
        super().__init__(detail)
        self.fact = Fact(known, detail)


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock file whose flock is ours."""

    base_name: str
    fd: int


def settle(ask: Callable[..., Fact], *about: object) -> Fact:
    """The fact that is asked for; unknown where the system refuses to tell."""
    try:
        return ask(*about)
    except NotHeldError as cause:
        return cause.fact
    except OSError as cause:
        place = f"{os.path.basename(os.fspath(cause.filename))}: " if cause.filename else ""
        return Fact(Known.UNKNOWN, f"{place}{reason_of(cause)}")


def hold_collector(stack: ExitStack, state_dir: str) -> Fact:
    """Hold `gc.lock` shared, so that no collector unlinks the lock files held after it. NO: held.

    Builders take it shared too, so they are not stalled; a collector waits for milliseconds.
    """
    return _hold_state(stack, state_dir, "gc.lock", fcntl.LOCK_SH)


def hold_user(stack: ExitStack, state_dir: str, uid: int, users: BuildUsers) -> Fact:
    """Hold the lock of that build user: no build starts as it, Nix takes another. NO: held."""
    if users.is_stranger(uid) and "userpool2" in os.listdir(state_dir):
        why = f"uid {uid} may be one that Nix allocates, by another start-id"
        raise NotHeldError(Known.UNKNOWN, why)
    name = users.user_lock(uid)
    pool = os.path.dirname(f"{state_dir}/{name}")
    if not os.path.isdir(pool):
        with suppress(OSError):  # as Nix makes it before its first build, whatever the umask
            os.mkdir(pool)
            os.chmod(pool, 0o755)  # noqa: S103 - its own mode
    return _hold_state(stack, state_dir, name, fcntl.LOCK_EX)


def _hold_state(stack: ExitStack, state_dir: str, name: str, operation: int) -> Fact:
    path = f"{state_dir}/{name}"
    try:
        fd = os.open(path, _LOCK_FLAGS | os.O_CREAT, _LOCK_MODE)
    except OSError as cause:
        if cause.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        fd = os.open(path, _READ_FLAGS)  # for its flock alone, where it may not be written
    stack.callback(os.close, fd)
    _flock(fd, operation, name)
    return NO


def hold_lock_file(stack: ExitStack, store_fd: int, base_name: str) -> HeldLock | None:
    """Hold the lock of an existing lock file; None where there is none by that name."""
    if "/" in base_name:
        raise NotHeldError(Known.UNKNOWN, f"{base_name!r} is no name in the store directory")
    try:
        fd = os.open(base_name, _LOCK_FLAGS, dir_fd=store_fd)
    except FileNotFoundError:
        return None
    stack.callback(os.close, fd)
    _flock(fd, fcntl.LOCK_EX, base_name)
    if not _is_linked(store_fd, base_name, fd):
        return None  # unlinked before the lock was ours: the name is free, or another file's
    # Whoever owns it may unlink it under our lock, and Nix would lock another file.
    found, owner = os.fstat(fd), os.fstat(store_fd).st_uid
    plain = stat.S_ISREG(found.st_mode)
    if not plain or (found.st_size, found.st_nlink, found.st_uid) != (0, 1, owner):
        seen = f"uid {found.st_uid}, {found.st_size} bytes, {found.st_nlink} links"
        why = f"{base_name} is not an empty lock file of Nix's, but: {seen}"
        raise NotHeldError(Known.UNKNOWN, why)
    return HeldLock(base_name, fd)


def hold_path(stack: ExitStack, store_fd: int, base_name: str) -> HeldLock:
    """Hold the path lock of that name, making its file where there is none.

    One that was made here is removed when the stack ends; one that was there stays.
    """
    made = False
    for _ in range(_ATTEMPTS):
        held = hold_lock_file(stack, store_fd, base_name)
        if held is not None:
            if made:
                stack.callback(_release, store_fd, held)
            return held
        flags = _LOCK_FLAGS | os.O_CREAT | os.O_EXCL
        try:
            os.close(os.open(base_name, flags, _LOCK_MODE, dir_fd=store_fd))
            made = True
        except FileExistsError:
            made = False  # a build made it first
    raise NotHeldError(Known.UNKNOWN, f"{base_name} changed hands {_ATTEMPTS} times")


def remove_lock_file(store_fd: int, lock: HeldLock) -> None:
    """Unlink a held lock file, then mark its inode: in this order, pathlocks.cc `deleteLockFile`.

    Nix takes a lock file of non-zero size for one that was unlinked, and starts afresh. The size
    is set rather than a byte written, because that cannot fail on a full disk.
    """
    if _is_linked(store_fd, lock.base_name, lock.fd):
        with suppress(FileNotFoundError):
            os.unlink(lock.base_name, dir_fd=store_fd)
    os.ftruncate(lock.fd, 1)


def _release(store_fd: int, lock: HeldLock) -> None:
    """Remove a lock file that was made here; one that stays is empty, free, and does no harm."""
    with suppress(OSError):
        remove_lock_file(store_fd, lock)


def _is_linked(store_fd: int, base_name: str, fd: int) -> bool:
    """Whether the name still leads to that very file, so that its lock is the one of the name."""
    linked = look(store_fd, base_name)
    return linked is not None and linked.file_id == FileId.of(os.fstat(fd))


def _flock(fd: int, operation: int, name: str) -> None:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        raise NotHeldError(Known.YES, f"{name} is held") from None


def temp_roots(store: Store) -> dict[StorePath, list[str]]:
    """Every temp root of a live process. A dead one's file is left: to tidy is the collector's."""

    def is_live(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    return store.temp_roots(is_live)


def rooted(roots: Mapping[StorePath, Sequence[str]], paths: Collection[StorePath]) -> Fact:
    """Whether a live temp root has the hash part of one of `paths`, as the collector compares."""
    hash_parts = {path.hash_part for path in paths}
    for root, pids in roots.items():
        if pids and root.hash_part in hash_parts:
            return Fact(Known.YES, f"process {pids[-1]}")
    return NO


def awaited(store: Store, path: StorePath, deriver: str) -> Fact:
    """Whether somebody alive may be building that path, or copying it here, by their temp roots.

    A lock tells of it by its name alone, which such a worker's may have lost.
    """
    built = filter(None, [StorePath.maybe(deriver)])
    return settle(lambda: rooted(temp_roots(store), [path, *built]))


def in_database(store: Store, path: StorePath) -> Fact:
    """Whether the database has the path as valid, by a connection opened for this question."""
    try:
        with connect(store.state_dir) as connection:
            return YES if registered(connection, store.store_dir, path) else NO
    except StoreUnreadableError as cause:
        return Fact(Known.UNKNOWN, str(cause))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of Nix that waits for this process to end, and so lets nobody write meanwhile."""

    pid: int
    waiting: int
    """Its child and our parent, the hook's shell. Another's child once the worker has ended."""

    def holds(self, path: str) -> bool:
        """Whether it is seen to hold that lock, and waits."""
        try:
            waits = os.getppid() == self.waiting and parent_of(self.waiting) == self.pid
        except OSError:
            return False
        return waits and holds(self.pid, path)


def waiting_worker() -> Worker:
    """Who would be the worker that runs this as its hook; `OSError` where that cannot be told.

    That it holds something is what shows that it is one.
    """
    shell = os.getppid()
    return Worker(parent_of(shell), shell)


@dataclass(frozen=True, slots=True)
class Survey:
    """What held of a batch before any lock was taken; it can only lead to fewer removals."""

    nix: dict[StorePath, Fact]
    origins: dict[StorePath, Origin]
    worker: Worker | None = None
    """Who holds locks for us, and is about to build."""


def survey_before_build(
    store: Store, derivation: StorePath, outputs: Collection[str], worker: Worker
) -> Survey:
    """As `survey`, for the scratch paths of what that worker is about to build.

    They are proved by their hash alone. That the database has the derivation shows that it is the
    one of this store.
    """
    check_file_system(store)
    check_namespace(store)
    if (found := in_database(store, derivation)).known is not Known.YES:
        why = found.detail or "the database does not have it as valid; is --state-dir right?"
        raise StoreUnreadableError(f"{derivation.base_name}: {why}")
    origins = dict(scratch_origin(Deriver(derivation, one), store.store_dir) for one in outputs)
    return Survey(store.ask_nix([*origins]), origins, worker)


def survey(store: Store, store_fd: int, requests: Sequence[RemoveRequest]) -> Survey:
    """Ask Nix and read the store once; `StoreUnreadableError` where nothing may be removed."""
    check_file_system(store)
    check_namespace(store)
    paths, seen = [StorePath(request.base_name) for request in requests], 0
    # Where they cannot be read a derivation may be missed, and so the locks that cover its output.
    roots = temp_roots(store)

    def names() -> Iterator[str]:
        nonlocal seen
        yield from (path.base_name for path in roots if path.is_derivation)
        for name in each_name(store_fd):
            seen += _counts(name)  # as they come by, so that the store is listed once
            yield name

    with connect(store.state_dir) as connection:
        outputs = Outputs(connection, store.store_dir)
        origins = find_origins(store, store_fd, paths, names(), outputs)
        count, sampled = sample(connection, store.store_dir)
    present = sum(name is not None and os.path.lexists(f"{store.view}/{name}") for name in sampled)
    scaled = count * present // max(1, len(sampled))
    check_census(
        count,
        scaled,
        max(0, seen - scaled),
        lambda: count_owned(store_fd, filter(_counts, each_name(store_fd)), store.build_users),
    )
    return Survey(store.ask_nix(paths), origins)


def _counts(name: str) -> bool:
    """Roughly whether it is a store path's: this is asked of every name of the store."""
    return name[_DASH : _DASH + 1] == "-" and not name.endswith(LOCK_SUFFIX)


@dataclass(frozen=True, slots=True)
class Witness:
    """What root can see of the claims on one entry; each method settles one of them."""

    locks: ExitStack
    store: Store
    store_fd: int
    survey: Survey
    entry: Entry
    kind: EntryKind
    held: list[HeldLock] = field(default_factory=list)
    """The path locks that were taken on the way; the stack lets them go."""
    lent: list[str] = field(default_factory=list)
    """Those that the worker holds who waits for us."""

    @property
    def path(self) -> StorePath:
        """The path that the entry is called after."""
        return StorePath(self.entry.base_name)

    @property
    def origin(self) -> Origin | None:
        """Where it comes from, if that is known."""
        return self.survey.origins.get(self.path)

    def hold_and_look(self) -> Facts:
        """Ask for all claims that its proof needs, taking its locks on the way.

        It stops at the first claim that holds or cannot be settled, so that no lock is touched
        without need. What is seen through locks comes first, what only holds under them last.
        """
        facts: dict[Claim, Fact] = {}
        for claim in sorted(proof_of(self.kind, self.origin), key=lambda claim: claim.asked):
            facts[claim] = settle(LOOKS[claim], self)
            if facts[claim].known is not Known.NO:
                break
        return facts

    def changed(self) -> Fact:
        """Whether it is another than was looked at, to the ctime."""
        return NO if look(self.store_fd, self.entry.base_name) == self.entry else YES

    def too_young(self) -> Fact:
        """Its last change, by ctime."""
        age, least = time.time() - self.entry.ctime, self.store.least_age
        # A time in the future means that the clock was set: too young, until it has caught up.
        if age < least:
            when = f"{int(age)} s ago" if age >= 0 else "in the future"
            return Fact(Known.YES, f"{when}; waiting until {least:g} s old")
        return NO

    def covers(self) -> Fact:
        """A lock file is all that names the derivation of an output whose `.drv` is gone."""
        for path in covered_paths(self.entry.base_name, self.store.store_dir):
            there = look(self.store_fd, path.base_name) is not None
            if there and in_database(self.store, path).known is not Known.YES:
                return Fact(Known.YES, path.base_name)
        return NO

    def mounted(self) -> Fact:
        """A mount on it or in it, or it is one."""
        seen = mounts()
        if seen is None:
            return UNKNOWN
        if os.fstat(self.store_fd).st_dev != self.entry.file_id.device:
            return Fact(Known.YES, "it is another file system")
        name, store = self.entry.base_name, self.store
        places = {store.store_dir.join(name), f"{store.view}/{name}"}
        inside = any(mount.is_within(place) for mount in seen for place in places)
        return YES if inside else NO

    def hold_path_locks(self) -> Fact:
        """Hold the locks that cover it; its own alone, where they are not known."""
        if self.kind is EntryKind.OUTPUT:
            self._hold_planted()
        names = covering_locks(self.store, self.store_fd, self.entry, self.kind, self.origin)
        if names is None and self.kind is EntryKind.CHROOT:
            return Fact(Known.UNKNOWN, "its derivation is not there to tell which")
        # A lock file is only ever taken if it is there; a build's lock is made like a build does.
        hold = hold_lock_file if self.kind is EntryKind.LOCK else hold_path
        for name in names or (path_lock(self.path),):
            if self._is_lent(name):
                self.lent.append(name)
                continue
            lock = hold(self.locks, self.store_fd, name)
            if lock is None:
                return Fact(Known.YES, "another one took its place")
            self.held.append(lock)
        return NO

    def _is_lent(self, name: str) -> bool:
        worker = self.survey.worker
        return worker is not None and worker.holds(f"{self.store.view}/{name}")

    def still_held(self) -> bool:
        """Whether all these locks count as yet: the worker waits, and each name leads to its lock.

        Nix unlinks its lock file by name (pathlocks.cc `deleteLockFile`), also a worker's that had
        waited for a file which was unlinked and never marked: by one that was killed in between, or
        on a full disk. So ours may go, and another build begin.
        """
        linked = (_is_linked(self.store_fd, lock.base_name, lock.fd) for lock in self.held)
        return all(map(self._is_lent, self.lent)) and all(linked)

    def _hold_planted(self) -> None:
        """Hold the lock of a build user's file that lies where one of Nix's belongs.

        Nix, as root, takes whatever lies there for its lock file.
        """
        if stat.S_ISREG(self.entry.mode) and parse_lock_name(self.entry.base_name):
            fd = os.open(self.entry.base_name, _READ_FLAGS, dir_fd=self.store_fd)
            self.locks.callback(os.close, fd)
            _flock(fd, fcntl.LOCK_EX, self.entry.base_name)

    def inside(self) -> Fact:
        """Whether a process has its root or working directory in a chroot."""
        name, objects = self.entry.base_name, {self.entry.file_id}
        with suppress(FileNotFoundError):  # before 2.25 or so the directory itself is the root
            root = os.stat(f"{name}/root", dir_fd=self.store_fd, follow_symlinks=False)
            objects.add(FileId.of(root))
        return _alive(processes_inside(self.store.store_dir.join(name), objects))

    def running(self) -> Fact:
        """A process of any uid that a build as its owner may run as."""
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
        """A live temp root on it, its derivation, or what it stands for."""
        # A chroot has the hash part of its derivation, as the collector knows too.
        paths = (self.path, *(self.origin.rooted if self.origin else ()))
        roots, worker = temp_roots(self.store), self.survey.worker
        # Who waits for us has one on what it is about to build.
        ours = f"{worker.pid}" if worker else ""
        others = {path: [pid for pid in pids if pid != ours] for path, pids in roots.items()}
        return rooted(others, paths)


LOOKS: Mapping[Claim, Callable[[Witness], Fact]] = {
    Claim.VALID_TO_NIX: lambda one: one.survey.nix.get(one.path, UNKNOWN),
    Claim.VALID_IN_DATABASE: lambda one: in_database(one.store, one.path),
    Claim.CHANGED: Witness.changed,
    Claim.COLLECTOR: lambda one: hold_collector(one.locks, one.store.state_dir),
    Claim.PATH_LOCK: Witness.hold_path_locks,
    Claim.TOO_YOUNG: Witness.too_young,
    Claim.SHARED: Witness.shared,
    Claim.USER_LOCK: lambda one: hold_user(
        one.locks, one.store.state_dir, one.entry.uid, one.store.build_users
    ),
    Claim.PROCESS: Witness.running,
    Claim.ORPHAN: Witness.orphan,
    Claim.TEMP_ROOT: Witness.rooted,
    Claim.MOUNT: Witness.mounted,
    Claim.COVERS: Witness.covers,
    Claim.INSIDE: Witness.inside,
}
"""How the helper looks for each claim, whatever the order."""


def _alive(pids: list[int] | None) -> Fact:
    if pids is None:
        return UNKNOWN
    return Fact(Known.YES, f"process {pids[0]}") if pids else NO
