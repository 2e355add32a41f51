# SPDX-License-Identifier: MIT
"""Everything that can be learned of one entry of the store, by an ordinary user's eyes.

The judgement is that of a sweep (scan.py); nothing here decides anything. No lock is taken.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from storewarden.explain.kept import Answer, referrers, registration, roots
from storewarden.explain.kinship import Output, covering, declared, derivers_of, origin_of
from storewarden.explain.locks import Around, LockFile, state_lock
from storewarden.explain.pointing import Pointed
from storewarden.explain.uses import Uses, uses_of
from storewarden.findings import Finding, Sweep
from storewarden.nix_queries import Registration
from storewarden.processes import Running, running
from storewarden.registrations import is_private, still_valid
from storewarden.scan import sweep_among, user_name
from storewarden.store import database
from storewarden.store.entries import (
    LINKS,
    Entry,
    EntryKind,
    look,
)
from storewarden.store.fact import Fact, Known
from storewarden.store.nix import Nix
from storewarden.store.paths import Deriver, StorePath


class What(StrEnum):
    """What an entry is to Nix and to this program."""

    VALID = "valid"
    MISSING = "missing"
    ABSENT = "absent"
    """Neither there nor registered."""
    UNREGISTERED = "unregistered"
    LEFTOVER = "leftover"
    """What an interrupted removal of this program's left."""
    SHARED_FILE = "shared-file"
    """A file below `.links`."""
    UNKNOWN = "unknown"
    """There, and whether it is valid could not be told."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one entry; None stands for what could not be seen."""

    pointed: Pointed
    path: str
    what: What
    valid: Fact
    now: float
    entry: Entry | None
    owner_name: str | None
    finding: Finding | None
    registered: Registration | None
    derivers: tuple[Deriver, ...]
    """Derivations that it is an output of, or would be."""
    outputs: tuple[Output, ...]
    """Of a derivation."""
    locks: tuple[LockFile, ...]
    user_lock: LockFile | None
    collector: LockFile | None
    rooted: tuple[Running, ...] | None
    """Processes with a temp root on it or on its derivation."""
    uses: Uses
    users: tuple[Running, ...]
    """The processes of `uses`, in its order."""
    roots: Answer | None
    """None: not asked, because it is not valid."""
    referrers: Answer | None
    notes: tuple[str, ...]


_NOTHING = Sweep((), (), "", leftovers=False)


def tell(around: Around, nix: Nix, pointed: Pointed) -> Story:
    """The story of that entry. What lives is looked at before Nix is asked."""
    store, name = around.store, pointed.base_name
    path, entry = store.store_dir.join(name), _look(around, name)
    origin = origin_of(around, name)
    derivers = derivers_of(name, origin)
    uses, users = _users(path, entry)
    wanted = [p for p in (StorePath.maybe(name), *(origin.rooted if origin else ())) if p]
    rooted = around.rooted(wanted)
    user_lock = entry and state_lock(around, store.build_users.user_lock(entry.uid))
    swept = sweep_among(store, {name}, tuple(EntryKind)) if "/" not in name else _NOTHING
    valid = _valid(around, name)
    what = _what(around, entry, valid)
    asked = valid.known is Known.YES
    return Story(
        pointed=pointed,
        path=path,
        what=what,
        valid=valid,
        now=time.time(),
        entry=entry,
        owner_name=None if entry is None else user_name(entry.uid),
        finding=next((f for f in swept.findings if f.base_name == name), None),
        registered=_registered(around, nix, name) if asked else None,
        derivers=derivers,
        outputs=tuple(declared(around, name)),
        locks=tuple(covering(around, name, origin)),
        user_lock=user_lock if user_lock and _is_build_users(around, entry) else None,
        collector=state_lock(around, "gc.lock"),
        rooted=None if rooted is None else tuple(map(running, rooted)),
        uses=uses,
        users=users,
        roots=roots(nix, path) if asked else None,
        referrers=referrers(nix, path) if asked else None,
        notes=swept.notes,
    )


def _users(path: str, entry: Entry | None) -> tuple[Uses, tuple[Running, ...]]:
    """Who uses it, without those that have ended meanwhile."""
    uses = uses_of(path, None if entry is None else entry.file_id)
    alive = [(use, one) for use in uses.seen if (one := running(use.pid)).command is not None]
    seen = tuple(use for use, _ in alive)
    return Uses(seen, uses.unseen), tuple(one for _, one in alive)


def _look(around: Around, name: str) -> Entry | None:
    with suppress(OSError):
        return look(around.store_fd, name)
    return None


def _is_build_users(around: Around, entry: Entry | None) -> bool:
    return entry is not None and around.store.build_users.own(entry.uid, entry.gid)


def _valid(around: Around, name: str) -> Fact:
    """Whether Nix or its database has it as valid; either one's yes is yes."""
    path = StorePath.maybe(name)
    if path is None:
        return Fact(Known.NO, "Nix cannot have a path of that name")
    said = around.store.ask_nix([path])[path]
    try:
        listed = still_valid(around.store.state_dir, around.store.store_dir, [name])
    except database.DatabaseUnseenError:
        return said
    if listed:
        return Fact(Known.YES, said.detail)
    return said


def _what(around: Around, entry: Entry | None, valid: Fact) -> What:
    if entry is None:
        return What.MISSING if valid.known is Known.YES else What.ABSENT
    if entry.base_name.startswith(f"{LINKS}/") or entry.base_name == LINKS:
        return What.SHARED_FILE
    if is_private(entry, os.fstat(around.store_fd).st_uid):
        return What.LEFTOVER
    known = {Known.YES: What.VALID, Known.NO: What.UNREGISTERED, Known.UNKNOWN: What.UNKNOWN}
    return known[valid.known]


def _registered(around: Around, nix: Nix, name: str) -> Registration | None:
    store, path = around.store, StorePath(name)
    return registration(store.state_dir, store.store_dir, path, nix)
