# SPDX-License-Identifier: MIT
"""Which names are worth a look: those that the database does not know, and how that is found."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from storewarden.misplaced import check_place
from storewarden.sight import look_around
from storewarden.store import database
from storewarden.store.entries import Entry, EntryKind, classify, is_private, look, open_directory
from storewarden.store.paths import StorePath, parse_lock_name
from storewarden.store.store import Store
from storewarden.store.verdict import PROOF, Fact, Known

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
    if not registered:
        check_place(store)
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


def entries_of(store: Store, store_fd: int, names: Collection[str]) -> tuple[list[Found], bool]:
    """What lies there under those names, by kind; and whether some are private directories."""
    store_uid = os.fstat(store_fd).st_uid
    seen = [entry for name in names if (entry := look(store_fd, name)) is not None]
    entries = [entry for entry in seen if not is_private(entry, store_uid)]
    users = store.build_users
    found = [
        (entry, _kind(store, entry, classify(entry, store_uid=store_uid, build_users=users)))
        for entry in entries
    ]
    return found, len(seen) > len(entries)


def _kind(store: Store, entry: Entry, kind: EntryKind) -> EntryKind:
    """The kind as far as the owner tells it: where he is hidden, it may be a build user."""
    hidden = kind is EntryKind.OUTPUT_OF_ROOT and entry.uid == store.hidden_uid
    return EntryKind.OUTPUT if hidden else kind


@dataclass(frozen=True, slots=True)
class Glance:
    """What is plain at once of some names; what is in neither set wants a closer look."""

    alive: frozenset[str]
    """A lock file that is held, or an output whose build user is in use or has a process."""
    gone: frozenset[str]
    others: frozenset[str]
    """There, but of a kind that is never removed."""


def glance(store: Store, among: Collection[str]) -> Glance:
    """Look at those names, and at neither the database nor Nix: cheap enough for every second."""
    store_fd = open_directory(store.view)
    try:
        found, _ = entries_of(store, store_fd, among)
        sight = look_around(store, store_fd, ())
    finally:
        os.close(store_fd)
    removable = [(entry, kind) for entry, kind in found if kind in PROOF]
    users = {entry.uid for entry, kind in removable if kind is EntryKind.OUTPUT}
    busy = {uid for uid in users if sight.user_is_busy(uid)}
    here = {entry.base_name for entry, _ in found}
    return Glance(
        alive=frozenset(
            entry.base_name
            for entry, kind in removable
            if (kind is EntryKind.LOCK and sight.is_held(entry)) or entry.uid in busy
        ),
        gone=frozenset(among) - here,
        others=frozenset(here.difference(entry.base_name for entry, _ in removable)),
    )
