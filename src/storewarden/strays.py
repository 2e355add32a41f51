# SPDX-License-Identifier: MIT
"""Which names are worth a look: those that the database does not know, and how that is found."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from storewarden.sight import look_around
from storewarden.store import database
from storewarden.store.derivation import Origin, find_origins
from storewarden.store.entries import (
    Entry,
    EntryKind,
    classify,
    is_lock_file,
    is_private,
    look,
    open_directory,
)
from storewarden.store.paths import StorePath, covered_paths, parse_lock_name
from storewarden.store.store import Store
from storewarden.store.verdict import Fact, Known

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
        for name in database.valid_names(store.state_dir, store.store_dir):
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
    paths = [n for n in unknown if not n.endswith(".lock") and StorePath.maybe(n) is not None]
    database.Census(registered, registered - len(absent), len(paths)).check()
    gone = [name for name in absent if look(store_fd, name) is None]
    missing = database.still_valid(store.state_dir, store.store_dir, gone) if gone else []
    return Strays(list(unknown), Fact(Known.NO), missing, ())


def strays_among(store: Store, names: Collection[str]) -> Strays:
    """The same for some names alone, in a time that does not depend on the size of the store."""
    paths = [path for name in names if (path := StorePath.maybe(name)) is not None]
    try:
        valid = set(database.still_valid(store.state_dir, store.store_dir, names)) if paths else ()
    except database.DatabaseUnseenError as cause:
        return Strays(list(names), Fact(Known.UNKNOWN), [], (str(cause),))
    return Strays([name for name in names if name not in valid], Fact(Known.NO), [], ())


def _strange_ones(store: Store, store_fd: int, names: Iterable[str]) -> list[str]:
    """The names whose owner is not the store's, and the lock files: all that needs no database.

    Where owners cannot be told apart, also what changed since 1970, as nothing valid has.
    """
    store_uid = os.fstat(store_fd).st_uid
    return [
        name
        for name in names
        if (entry := look(store_fd, name)) is not None
        and (
            entry.uid != store_uid
            or parse_lock_name(name)
            or entry.store_path is None
            or (store_uid == store.hidden_uid and not _canonical(store_fd, name))
        )
    ]


def _canonical(store_fd: int, name: str) -> bool:
    """Whether its time is what Nix gives to all that it registers (posix-fs-canonicalise.cc)."""
    try:
        return os.stat(name, dir_fd=store_fd, follow_symlinks=False).st_mtime_ns == _MTIME_NS
    except FileNotFoundError:
        return True  # gone meanwhile


def entries_of(
    store: Store, store_fd: int, names: Collection[str], all_names: Iterable[str]
) -> tuple[list[Found], dict[StorePath, Origin], bool]:
    """What lies there under those names, by kind; what has an origin; if there are leftovers.

    `all_names` are those of the whole store directory, by which origins are found; leftovers are
    private directories.
    """
    store_uid = os.fstat(store_fd).st_uid
    seen = [entry for name in names if (entry := look(store_fd, name)) is not None]
    entries = [entry for entry in seen if not is_private(entry, store_uid)]
    locks = [entry for entry in entries if is_lock_file(entry, store_uid)]
    paths = {path for entry in entries if (path := entry.store_path)} - {
        lock.store_path for lock in locks
    }
    locked = {path for lock in locks for path in covered_paths(lock.base_name, store.store_dir)}
    find = partial(
        find_origins, store_fd=store_fd, store_dir=store.store_dir, state_dir=store.state_dir
    )
    # A lock's name tells its derivation, or else the database does, which no other name can.
    origins = find(locked - paths, ()) | find(paths, all_names)
    found = []
    for entry in entries:
        origin = origins.get(entry.store_path) if entry.store_path else None
        kind = classify(entry, origin, store_uid=store_uid, build_users=store.build_users)
        found.append((entry, _kind(store, entry, kind)))
    return found, origins, len(seen) > len(entries)


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
        entries = [entry for name in among if (entry := look(store_fd, name)) is not None]
        sight = look_around(store, store_fd, ())
        alive = [entry for entry in entries if sight.is_alive(entry, among[entry.base_name])]
    finally:
        os.close(store_fd)
    return Glance(
        alive=frozenset(entry.base_name for entry in alive),
        gone=frozenset(among).difference(entry.base_name for entry in entries),
        others=frozenset(entry.base_name for entry in entries if entry.store_path is None),
    )
