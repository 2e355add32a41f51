# SPDX-License-Identifier: MIT
"""Which names are worth a look: those that the database does not know, and how that is found."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from storewarden.misplaced import check_place
from storewarden.registrations import is_private, origins_of, still_valid, valid_names
from storewarden.sight import look_around
from storewarden.store import database
from storewarden.store.entries import (
    Entry,
    EntryKind,
    classify,
    count_owned,
    is_lock_file,
    look,
    open_directory,
)
from storewarden.store.fact import Fact, Known
from storewarden.store.paths import Origin, StorePath, covered_paths, parse_lock_name
from storewarden.store.store import Store

Found = tuple[Entry, EntryKind]
_MTIME_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Strays:
    """The names to look at, what the database says of them, and what is missing on disk."""

    names: list[str]
    in_database: Fact
    missing: list[str]
    notes: tuple[str, ...]


def strays(store: Store, store_fd: int, names: list[str]) -> Strays:
    """The difference of two sets, so that nothing is looked at but what is unregistered.

    The directory is listed before the database is read: what is registered in between is no
    stray, and what looks missing is looked for again.
    """
    unknown, absent, registered = set(names), [], 0
    try:
        for name in valid_names(store.state_dir, store.store_dir):
            registered += 1
            if name in unknown:
                unknown.remove(name)
            else:
                absent.append(name)
    except database.DatabaseUnseenError as cause:
        notes = (f"{cause}; found by owner instead, so what root left behind is not listed",)
        if os.fstat(store_fd).st_uid == store.hidden_uid:
            notes = (f"{cause}; found by their time of change instead, which Nix sets back",)
        return Strays(_strange_ones(store, store_fd, names), Fact(Known.UNKNOWN), [], notes)
    if not registered:
        check_place(store)
    paths = [n for n in unknown if not n.endswith(".lock") and StorePath.maybe(n) is not None]
    census = database.Census(registered, registered - len(absent), len(paths))
    census.check(lambda: count_owned(store_fd, paths, store.build_users))
    gone = [name for name in absent if is_gone(store_fd, name)]
    missing = still_valid(store.state_dir, store.store_dir, gone) if gone else []
    return Strays(list(unknown), Fact(Known.NO), missing, ())


def is_gone(store_fd: int, name: str) -> bool:
    """Whether there is certainly nothing of that name."""
    try:
        return look(store_fd, name) is None
    except (OSError, ValueError):  # it cannot be looked at, or is no name at all
        return False


def strays_among(store: Store, names: Collection[str]) -> Strays:
    """The same for some names alone, in a time that does not depend on the size of the store."""
    paths = [path for name in names if (path := StorePath.maybe(name)) is not None]
    try:
        valid = set(still_valid(store.state_dir, store.store_dir, names)) if paths else ()
    except database.DatabaseUnseenError as cause:
        return Strays(list(names), Fact(Known.UNKNOWN), [], (str(cause),))
    return Strays([name for name in names if name not in valid], Fact(Known.NO), [], ())


def _strange_ones(store: Store, store_fd: int, names: Iterable[str]) -> list[str]:
    """The names whose owner is not the store's, and the lock files: all that needs no database.

    Where owners cannot be told apart, also what changed since 1970, as nothing valid has.
    """
    store_uid = os.fstat(store_fd).st_uid
    return [name for name in names if _is_strange(store, store_fd, name, store_uid)]


def _is_strange(store: Store, store_fd: int, name: str, store_uid: int) -> bool:
    try:
        found = os.stat(name, dir_fd=store_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False  # gone meanwhile
    except OSError:
        return True  # which is told when it is looked at more closely
    if found.st_uid != store_uid or parse_lock_name(name) or StorePath.maybe(name) is None:
        return True
    # What Nix gives to all that it registers (posix-fs-canonicalise.cc).
    return store_uid == store.hidden_uid and found.st_mtime_ns != _MTIME_NS


@dataclass(frozen=True, slots=True)
class Looked:
    """What lies there under some names."""

    found: list[Found]
    """Without private directories."""
    origins: dict[StorePath, Origin]
    """Of what lies there, and of what its lock files cover."""
    leftovers: bool
    """Whether there are private directories."""
    unseen: dict[str, str]
    """The names of what cannot be looked at, as on a bad disk, and why."""


def entries_of(
    store: Store, store_fd: int, names: Collection[str], all_names: Collection[str]
) -> Looked:
    """What lies there under those names, by kind.

    `all_names` are those of the whole store directory, by which origins are found.
    """
    store_uid = os.fstat(store_fd).st_uid
    seen, unseen = _look_at(store_fd, names)
    entries = [entry for entry in seen if not is_private(entry, store_uid)]
    origins = _origins(store, store_fd, entries, all_names)
    found = []
    for entry in entries:
        path = entry.store_path
        # What a hidden owner does besides cannot be told, so its origin proves nothing.
        origin = origins.get(path) if path and entry.uid != store.hidden_uid else None
        kind = classify(entry, origin, store_uid=store_uid, build_users=store.build_users)
        found.append((entry, _kind(store, entry, kind)))
    return Looked(found, origins, len(seen) > len(entries), unseen)


def _look_at(store_fd: int, names: Collection[str]) -> tuple[list[Entry], dict[str, str]]:
    seen, unseen = [], {}
    for name in names:
        try:
            entry = look(store_fd, name)
        except OSError as cause:
            unseen[name] = os.strerror(cause.errno or 0).lower()
            continue
        if entry is not None:
            seen.append(entry)
    return seen, unseen


def _origins(
    store: Store, store_fd: int, entries: Sequence[Entry], all_names: Collection[str]
) -> dict[StorePath, Origin]:
    store_uid = os.fstat(store_fd).st_uid
    locks = [entry for entry in entries if is_lock_file(entry, store_uid)]
    paths = {path for entry in entries if (path := entry.store_path)} - {
        lock.store_path for lock in locks
    }
    locked = {path for lock in locks for path in covered_paths(lock.base_name, store.store_dir)}
    # A lock's name tells its derivation, or else the database does, which no other name can.
    known = origins_of(store, store_fd, locked - paths, ())
    return known | origins_of(store, store_fd, paths, all_names)


def _kind(store: Store, entry: Entry, kind: EntryKind) -> EntryKind:
    """The kind as far as the owner tells it: where he is hidden, it may be a build user."""
    hidden = kind is EntryKind.OUTPUT_OF_ROOT and entry.uid == store.hidden_uid
    return EntryKind.OUTPUT if hidden else kind


@dataclass(frozen=True, slots=True)
class Glance:
    """What is plain at once of some names; what is in neither set wants a closer look."""

    alive: frozenset[str]
    """What somebody is at work on: by its locks, its build user, or an orphan of that user."""
    gone: frozenset[str]
    others: frozenset[str]
    """There, but by their names never removed."""


def glance(store: Store, among: Mapping[str, tuple[str, ...] | None]) -> Glance:
    """Look at those names, and at neither the database nor Nix: cheap enough for every second.

    With each name go the locks beside its own that cover it; None where they cannot be known.
    """
    store_fd = open_directory(store.view)
    try:
        entries, unseen = _look_at(store_fd, among)
        sight = look_around(store, store_fd, ())
        alive = [entry for entry in entries if sight.is_alive(entry, among[entry.base_name])]
    finally:
        os.close(store_fd)
    return Glance(
        alive=frozenset(entry.base_name for entry in alive),
        gone=frozenset(among).difference(unseen, (entry.base_name for entry in entries)),
        others=frozenset(entry.base_name for entry in entries if entry.store_path is None),
    )
