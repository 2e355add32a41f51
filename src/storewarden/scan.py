# SPDX-License-Identifier: MIT
"""One sweep: what lies in the store directory and is not registered, and what claims it.

Needs no privilege, takes no lock, writes nothing. What this user cannot see is unknown, and the
notes say so.
"""

import itertools
import os
import pwd
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from storewarden.claims import PROOF, Judgement, Verdict, judge
from storewarden.observe import (
    Lock,
    Observation,
    Unregistered,
    observe,
    own_lock,
    unregistered_names,
)
from storewarden.readable import ThisStore, repair_path
from storewarden.store.database import DatabaseUnseenError, check_census
from storewarden.store.derivation import covering_locks
from storewarden.store.entries import (
    OPEN_TO_OTHERS,
    PRIVATE_PREFIX,
    Entry,
    EntryKind,
    classify,
    count_owned,
    is_lock_file,
    look,
)
from storewarden.store.paths import (
    DERIVATION_SUFFIX,
    Deriver,
    Origin,
    StorePath,
    covered_paths,
    parse_lock_name,
)
from storewarden.store.store import NO, UNKNOWN, Fact, Known, Store

_MOST_UNSEEN = 10
"""Of the entries that cannot be looked at, so many are named."""
_MTIME_NS = 1_000_000_000
"""What Nix gives to all that it registers (posix-fs-canonicalise.cc)."""
_MOST_OPEN = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry, all that could be learned of it, and the judgement."""

    base_name: str
    kind: EntryKind
    judgement: Judgement
    entry: Entry | None = None
    """None for what is registered and not there."""
    owner_name: str | None = None
    age: float | None = None
    """Seconds since its last change (ctime)."""
    deriver: Deriver | None = None
    locks: tuple[Lock, ...] = ()
    covering: tuple[str, ...] | None = None
    """The locks that every build holds which may write there, if they are known; they need not
    be there."""
    size: int | None = None
    """Bytes on disk, as far as could be read."""
    size_complete: bool = False
    of_stranger: bool = False
    """Whether it is called like a store path, and its owner is no build user here. Only build users
    and the store's owner can make anything there: it was one once."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The findings of one pass over a store, and what could not be seen."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    nix_silent: str
    """Why Nix could not be asked; empty where it answered, or nothing was to be asked."""
    leftovers: bool
    """Whether an interrupted removal waits to be finished."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What lies there under some names."""

    found: tuple[Unregistered, ...]
    """Without private directories."""
    origins: Mapping[StorePath, Origin]
    """Of what lies there, and of what its lock files cover."""
    leftovers: bool
    """Whether there are private directories."""
    unseen: Mapping[str, str]
    """The names of what cannot be looked at, as on a bad disk, and why."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What is plain at once of some names; what is in neither set needs a closer look."""

    alive: Mapping[str, frozenset[int]]
    """What somebody is at work on: by its locks, its build user, or an orphan of that user; and
    the pids of whom, as far as they are seen."""
    quiet: Mapping[str, Entry]
    """What is there, and nobody is plainly at work on."""
    gone: frozenset[str]
    others: frozenset[str]
    """There, but by their names never removed."""


def sweep(store: Store, kinds: Collection[EntryKind] = tuple(EntryKind)) -> Sweep:
    """Findings of those kinds, sorted by name. `StoreUnreadableError` for a broken world."""
    with observe(store) as seen:
        try:
            names, missing = _difference(seen)
        except DatabaseUnseenError as cause:
            names, note = _strange_names(seen, cause)
            return _judged(seen, names, UNKNOWN, kinds, notes=(note,))
        return _judged(seen, names, NO, kinds, missing=missing)


def sweep_among(store: Store, among: Collection[str], kinds: Collection[EntryKind]) -> Sweep:
    """The same for those names alone, and without what is missing."""
    with observe(store) as seen:
        return look_among(seen, among, kinds)


def look_among(seen: Observation, among: Collection[str], kinds: Collection[EntryKind]) -> Sweep:
    """The same in an observation, in a time that does not depend on the size of the store."""
    # Together with what a lock file covers: that decides about it.
    store_dir = seen.store.store_dir
    names = {path.base_name for n in among for path in covered_paths(n, store_dir)}.union(among)
    try:
        valid = set(seen.registered_among(names))
    except DatabaseUnseenError as cause:
        return _judged(seen, names, UNKNOWN, kinds, notes=(str(cause),))
    return _judged(seen, names - valid, NO, kinds)


def glance(seen: Observation, among: Mapping[str, tuple[str, ...] | None]) -> Glance:
    """Look at those names, and at neither the database nor Nix: cheap enough for every second.

    With each name go the locks beside its own that cover it; None where they cannot be known.
    """
    entries, unseen = _look_at(seen.store_fd, among)
    at_work = {e.base_name: seen.at_work_on(e, among[e.base_name]) for e in entries}
    return Glance(
        alive={name: pids for name, pids in at_work.items() if pids is not None},
        quiet={e.base_name: e for e in entries if at_work[e.base_name] is None},
        gone=frozenset(among).difference(unseen, (entry.base_name for entry in entries)),
        others=frozenset(entry.base_name for entry in entries if entry.store_path is None),
    )


def _difference(seen: Observation) -> tuple[set[str], list[str]]:
    """What is there and not registered, and what is registered and not there, of the whole store.

    A difference of two sets, so that only what is unregistered is looked at.
    The directory is listed before the database is read: what is registered in between is not
    taken for unregistered, and what looks missing is looked for again.
    """
    store, store_fd, names = seen.store, seen.store_fd, seen.names
    with seen.database() as connection:
        rest, count, absent = unregistered_names(connection, store.store_dir, names)
    if not count:
        seen.check_place()
    paths = [n for n in rest if not n.endswith(".lock") and StorePath.maybe(n) is not None]
    present = count - len(absent)
    check_census(
        count, present, len(paths), lambda: count_owned(store_fd, paths, store.build_users)
    )
    gone = [name for name in absent if is_gone(store_fd, name)]
    return rest, seen.registered_among(gone)


def _strange_names(seen: Observation, cause: DatabaseUnseenError) -> tuple[set[str], str]:
    """What differs from all that is valid, where the database cannot be seen; and a note of it."""
    note = f"{cause}; found by owner instead, so what root left behind is not listed"
    if seen.store_uid == seen.store.hidden_uid:
        note = f"{cause}; found by their time of change instead, which Nix sets back"
    return {name for name in seen.names if _is_strange(seen, name)}, note


def _is_strange(seen: Observation, name: str) -> bool:
    """Whether it differs from what is valid in ways that need no database.

    Its owner is not the store's, or it is a lock file or no store path. Where owners cannot be told
    apart, it also differs if it changed since 1970, as nothing valid has.
    """
    try:
        found = os.stat(name, dir_fd=seen.store_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False  # gone meanwhile
    except OSError:
        return True  # which is said when it is looked at more closely
    if found.st_uid != seen.store_uid or parse_lock_name(name) or StorePath.maybe(name) is None:
        return True
    return seen.store_uid == seen.store.hidden_uid and found.st_mtime_ns != _MTIME_NS


def is_gone(store_fd: int, name: str) -> bool:
    """Whether there is certainly nothing of that name."""
    try:
        return look(store_fd, name) is None
    except (OSError, ValueError):  # it cannot be looked at, or is no name at all
        return False


def entries_of(seen: Observation, names: Collection[str]) -> Looked:
    """What lies there under those names, by kind and with its origin."""
    there, unseen = _look_at(seen.store_fd, names)
    entries = [entry for entry in there if not is_private(entry, seen.store_uid)]
    origins = _origins(seen, entries)
    found = tuple(_unregistered(seen, entry, origins) for entry in entries)
    return Looked(found, origins, len(there) > len(entries), unseen)


def _look_at(store_fd: int, names: Collection[str]) -> tuple[list[Entry], dict[str, str]]:
    entries, unseen = [], {}
    for name in names:
        try:
            entry = look(store_fd, name)
        except OSError as cause:
            unseen[name] = os.strerror(cause.errno or 0).lower()
            continue
        if entry is not None:
            entries.append(entry)
    return entries, unseen


def is_private(entry: Entry, store_uid: int) -> bool:
    """Whether it is a private directory of this program's, which no build user can make."""
    own = stat.S_ISDIR(entry.mode) and not entry.mode & OPEN_TO_OTHERS
    return own and entry.uid == store_uid and entry.base_name.startswith(PRIVATE_PREFIX)


def _origins(seen: Observation, entries: Sequence[Entry]) -> dict[StorePath, Origin]:
    locks = [entry for entry in entries if is_lock_file(entry, seen.store_uid)]
    paths = {path for entry in entries if (path := entry.store_path)} - {
        lock.store_path for lock in locks
    }
    store_dir = seen.store.store_dir
    locked = {path for lock in locks for path in covered_paths(lock.base_name, store_dir)}
    # A lock's name tells its derivation, or else the database does, which no other name can.
    return seen.origins(locked - paths, by_names=False) | seen.origins(paths)


def _unregistered(
    seen: Observation, entry: Entry, origins: Mapping[StorePath, Origin]
) -> Unregistered:
    store, path = seen.store, entry.store_path
    origin = origins.get(path) if path else None
    hidden = entry.uid == store.hidden_uid
    # What a hidden owner does besides cannot be told, so its origin proves nothing.
    proving = None if hidden else origin
    kind = classify(entry, proving, store_uid=seen.store_uid, build_users=store.build_users)
    if hidden and kind is EntryKind.OUTPUT_OF_ROOT:
        kind = EntryKind.OUTPUT  # it may be a build user's
    covering = covering_locks(store, seen.store_fd, entry, kind, origin)
    return Unregistered(entry, kind, origin, covering)


def _judged(
    seen: Observation,
    names: Collection[str],
    in_database: Fact,
    kinds: Collection[EntryKind],
    missing: Iterable[str] = (),
    notes: tuple[str, ...] = (),
) -> Sweep:
    """The findings among those names, of which that is what the database says."""
    looked = entries_of(seen, names)
    answers = seen.valid_to_nix([p for it in looked.found if (p := it.entry.store_path)])
    # All are judged, whatever was asked for: what a lock file covers decides about it.
    found = [
        replace(
            it,
            valid_to_nix=answers[path] if (path := it.entry.store_path) else UNKNOWN,
            valid_in_database=in_database,
        )
        for it in looked.found
    ]
    judged = _findings(seen, found, looked)
    findings = [finding for finding in judged if finding.kind in kinds]
    if EntryKind.MISSING in kinds:
        findings += [_missing(seen.store, name) for name in missing]
    silent = [fact.detail for fact in answers.values() if fact.known is Known.UNKNOWN]
    ordered = tuple(sorted(findings, key=lambda finding: finding.base_name))
    unseen = [
        f"{seen.store.store_dir.join(name)} cannot be looked at: {why}; what the kernel says: dmesg"
        for name, why in sorted(looked.unseen.items())[:_MOST_UNSEEN]
    ]
    limits = (*notes, *_limits(seen, looked.found), *unseen)
    return Sweep(ordered, limits, silent[0] if silent else "", looked.leftovers)


def _findings(
    seen: Observation, found: Iterable[Unregistered], looked: Looked
) -> Iterator[Finding]:
    """Without what has been registered since the database was read.

    Lock files last: one that covers a kept entry, or what cannot be looked at and so may be there,
    is kept with it.
    """
    kept: dict[str, str] = {}
    for it in sorted(found, key=lambda it: it.kind is EntryKind.LOCK):
        if it.valid_to_nix.known is Known.YES:
            continue
        name = it.entry.base_name
        if it.kind is not EntryKind.LOCK:
            finding = _finding(seen, it, it.origin.deriver if it.origin else None)
            if finding.judgement.verdict is Verdict.KEEP:
                locks = it.origin.locks if it.origin else ()
                kept |= dict.fromkeys((*own_lock(it.entry), *locks), name)
        else:
            covered = [p.base_name for p in covered_paths(name, seen.store.store_dir)]
            held_back = kept.get(name) or next((n for n in covered if n in looked.unseen), None)
            covers = Fact(Known.YES, held_back) if held_back else NO
            finding = _finding(
                seen, replace(it, covers=covers), locked_by(seen, name, looked.origins)
            )
        yield finding


def _finding(seen: Observation, it: Unregistered, deriver: Deriver | None) -> Finding:
    entry, provable = it.entry, it.kind in PROOF
    judgement = judge(it.kind, it.origin, seen.facts(it))
    hidden = entry.uid == seen.store.hidden_uid
    of_stranger = it.kind is EntryKind.FOREIGN and entry.store_path is not None and not hidden
    if of_stranger:
        judgement = replace(judgement, reasons=_of_stranger(seen.store, entry.base_name))
    size, complete = tree_size(seen.store_fd, entry) if provable else (None, False)
    return Finding(
        base_name=entry.base_name,
        kind=it.kind,
        judgement=judgement,
        entry=entry,
        owner_name=None if hidden else user_name(entry.uid),
        age=seen.now - entry.ctime,
        deriver=deriver,
        locks=seen.locks(entry, it.covering) if provable else (),
        covering=it.covering,
        size=size,
        size_complete=complete,
        of_stranger=of_stranger,
    )


def locked_by(
    seen: Observation, base_name: str, origins: Mapping[StorePath, Origin]
) -> Deriver | None:
    """The derivation and output whose build takes a lock file of that name, as far as is known.

    `origins` are those of the paths that it may lock.
    """
    readings = [
        Deriver(reading.locked, reading.output)
        for reading in parse_lock_name(base_name)
        if reading.output is not None
    ]
    present = [r for r in readings if not is_gone(seen.store_fd, r.derivation.base_name)]
    covered = covered_paths(base_name, seen.store.store_dir)
    by_origin = [origins[path].deriver for path in covered if path in origins]
    return next(iter(present or by_origin or readings), None)


def _of_stranger(store: Store, name: str) -> tuple[str, str]:
    """Why it is only reported, and what to do."""
    delete = f"nix-store --delete {shlex.quote(store.store_dir.join(name))}"
    command = ThisStore(store.store_dir.path, store.state_dir).command(delete)
    return (
        "its owner is no build user, but seems to have been one of an earlier installation",
        f"to have Nix delete it, if nothing builds it: {command}",
    )


def _missing(store: Store, name: str) -> Finding:
    path = store.store_dir.join(name)
    this = ThisStore(store.store_dir.path, store.state_dir)
    if name.endswith(DERIVATION_SUFFIX):
        # Nix refuses to repair a .drv, and says so only after it was asked to.
        cure = f"what brings it back: {this.command(f'storewarden explain {path}')}"
    else:
        cure = f"to fetch or build it again: {this.command(repair_path(path))}"
    reasons = (EntryKind.MISSING.only_reported, cure)
    return Finding(name, EntryKind.MISSING, Judgement(Verdict.KEEP, reasons))


def user_name(uid: int) -> str | None:
    """The name of that user, or None for a uid without one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _limits(seen: Observation, found: Sequence[Unregistered]) -> Iterator[str]:
    """A sentence for each thing that cannot be seen from here, and what to do about it."""
    store = seen.store
    if store.apart():
        yield (
            "nix-daemon runs outside this container or sandbox, so its builds and their locks"
            " cannot be seen, and this process removes nothing; run storewarden where nix-daemon"
            " runs"
        )
    if any(it.entry.uid == store.hidden_uid for it in found):
        yield (
            f"uid {store.hidden_uid} stands for every user whom this user namespace does not know,"
            " so who owns what cannot be told here; it can where storewarden runs outside"
        )
    if seen.mounts is None:
        yield (
            "/proc is not mounted or not readable here, so processes, locks and mounts cannot be"
            " seen, and nothing is removed; mount it: mount -t proc proc /proc"
        )
    # Nix makes the second directory where it allocates uids by itself (auto-allocate-uids).
    if not store.build_users.uids and not os.path.isdir(f"{store.state_dir}/userpool2"):
        yield (
            "there are no build users here (see --build-group), so builds run as the store's owner:"
            " what they strand cannot be told from Nix's own copies, and is only reported"
        )


def tree_size(store_fd: int, entry: Entry, limit: int = 20_000) -> tuple[int, bool]:
    """Bytes that an entry takes on disk, and whether all of it could be read.

    By descriptor, never following, at most `limit` things and 100 levels: a builder chose the
    tree. An upper bound of what removal frees: files with other links free nothing.
    """
    total, left = entry.blocks * 512, limit
    if not stat.S_ISDIR(entry.mode):
        return total, True
    stack = [_open_below(store_fd, entry.base_name)]
    complete = True
    try:
        while stack:
            fd = stack.pop()
            if fd is None:
                complete = False
                continue
            try:
                with os.scandir(fd) as children:
                    for child in itertools.islice(children, left):
                        left -= 1
                        found = child.stat(follow_symlinks=False)
                        if found.st_dev != entry.file_id.device:
                            continue  # mounted there; not what the entry takes
                        total += found.st_blocks * 512
                        if stat.S_ISDIR(found.st_mode):
                            deep = len(stack) >= _MOST_OPEN
                            stack.append(None if deep else _open_below(fd, child.name))
            except OSError:
                complete = False
            finally:
                os.close(fd)
    finally:
        for fd in stack:
            if fd is not None:
                os.close(fd)
    return total, complete and left > 0


def _open_below(directory_fd: int, name: str) -> int | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory_fd)
    except OSError:
        return None
