# SPDX-License-Identifier: MIT
"""One sweep: what lies in the store directory and is not registered, and what claims it.

Needs no privilege, takes no lock, writes nothing. What this user cannot see is unknown, and the
notes say so.
"""

import os
import pwd
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from storewarden.copyable import ThisStore, repair_path
from storewarden.findings import Finding, Sweep
from storewarden.limits import limits
from storewarden.sight import Sight, look_around
from storewarden.sizes import tree_size
from storewarden.store import database
from storewarden.store.derivers import Deriver, find_derivers
from storewarden.store.entries import (
    Entry,
    EntryKind,
    list_names,
    open_directory,
)
from storewarden.store.errors import StoreUnreadableError
from storewarden.store.paths import StorePath, covered_paths, parse_lock_name
from storewarden.store.store import Store
from storewarden.store.verdict import (
    NO,
    PROOF,
    REPORT_ONLY,
    Claim,
    Fact,
    Judgement,
    Known,
    Verdict,
    judge,
)
from storewarden.strays import Found, Strays, entries_of, is_gone, strays, strays_among

_MOST_UNSEEN = 10
"""Of the entries that cannot be looked at, so many are named."""


def sweep(store: Store, kinds: Collection[EntryKind] = tuple(EntryKind)) -> Sweep:
    """Findings of those kinds, sorted by name. `StoreUnreadableError` for a broken world."""
    with _opened(store) as store_fd:
        names = list_names(store_fd)
        return _sweep(store, store_fd, names, strays(store, store_fd, names), kinds)


def sweep_among(store: Store, among: Collection[str], kinds: Collection[EntryKind]) -> Sweep:
    """The same for those names alone, and without what is missing."""
    with _opened(store) as store_fd:
        # Together with what a lock file covers: that decides about it.
        covered = {path.base_name for n in among for path in covered_paths(n, store.store_dir)}
        wanted = strays_among(store, covered.union(among))
        # All names, because a lock file or a derivation beside it tells whose an output is.
        names = list_names(store_fd) if wanted.names else []
        return _sweep(store, store_fd, names, wanted, kinds)


@contextmanager
def _opened(store: Store) -> Iterator[int]:
    store_fd = open_directory(store.view)
    try:
        yield store_fd
    except OSError as cause:
        reason = os.strerror(cause.errno or 0).lower()
        raise StoreUnreadableError(f"cannot look at {store.view}: {reason}") from cause
    finally:
        os.close(store_fd)


def _sweep(
    store: Store, store_fd: int, names: list[str], wanted: Strays, kinds: Collection[EntryKind]
) -> Sweep:
    looked = entries_of(store, store_fd, wanted.names)
    found = looked.found
    scene = _scene(store, store_fd, names, wanted, found)
    # All are judged, whatever was asked for: what a lock file covers decides about it.
    judged = _findings(scene, found, looked.unseen)
    findings = [finding for finding in judged if finding.kind in kinds]
    if EntryKind.MISSING in kinds:
        findings += [_missing(store, name) for name in wanted.missing]
    silent = [f.detail for f in scene.answers.values() if f.known is Known.UNKNOWN]
    ordered = tuple(sorted(findings, key=lambda finding: finding.base_name))
    unseen = [
        f"{store.store_dir.join(name)} cannot be looked at: {why}; what the kernel says: dmesg"
        for name, why in sorted(looked.unseen.items())[:_MOST_UNSEEN]
    ]
    notes = (*wanted.notes, *limits(scene.sight, found), *unseen)
    return Sweep(ordered, notes, silent[0] if silent else "", looked.leftovers)


@dataclass(frozen=True, slots=True)
class _Scene:
    """All that was asked at once, for the entries to be looked at one by one."""

    store_fd: int
    in_database: Fact
    answers: Mapping[StorePath, Fact]
    derivers: Mapping[StorePath, Deriver]
    sight: Sight


def _scene(
    store: Store, store_fd: int, names: list[str], wanted: Strays, found: Sequence[Found]
) -> _Scene:
    asked = [path for entry, _ in found if (path := entry.store_path) is not None]
    outputs = [p for e, kind in found if kind is EntryKind.OUTPUT and (p := e.store_path)]
    known = database.known_derivers(store.state_dir, store.store_dir, outputs)
    return _Scene(
        store_fd=store_fd,
        in_database=wanted.in_database,
        answers=store.ask_nix(asked) if asked else {},
        derivers=known | find_derivers(outputs, names, store.store_dir),
        sight=look_around(store, store_fd, {entry.uid for entry, _ in found}),
    )


def _findings(scene: _Scene, found: Sequence[Found], unseen: Iterable[str]) -> list[Finding]:
    """Lock files last: one that covers a kept entry is kept with it."""
    findings: list[Finding] = []
    kept = set(unseen)
    for entry, kind in sorted(found, key=lambda pair: pair[1] is EntryKind.LOCK):
        covered = covered_paths(entry.base_name, scene.sight.store.store_dir)
        covers = next((path.base_name for path in covered if path.base_name in kept), None)
        fact = NO if covers is None else Fact(Known.YES, covers)
        finding = _finding(scene, entry, kind, fact)
        if finding is None:
            continue
        findings.append(finding)
        if finding.judgement.verdict is Verdict.KEEP and kind is not EntryKind.LOCK:
            kept.add(entry.base_name)
    return findings


def _finding(scene: _Scene, entry: Entry, kind: EntryKind, covers: Fact) -> Finding | None:
    """The finding of one entry; None if it has been registered since the database was read."""
    path = entry.store_path
    nix = scene.answers.get(path, Fact(Known.UNKNOWN)) if path else Fact(Known.UNKNOWN)
    if nix.known is Known.YES:
        return None
    if kind is EntryKind.LOCK:
        deriver = locked_by(scene.store_fd, entry.base_name)
    else:
        deriver = scene.derivers.get(path) if path else None
    locks = scene.sight.locks(entry, kind, deriver)
    facts = scene.sight.facts(entry, kind, deriver, locks) | {
        Claim.VALID_TO_NIX: nix,
        Claim.VALID_IN_DATABASE: scene.in_database,
        Claim.COVERS: covers,
    }
    size, complete = tree_size(scene.store_fd, entry) if kind in PROOF else (None, False)
    return Finding(
        base_name=entry.base_name,
        kind=kind,
        judgement=judge(kind, facts),
        entry=entry,
        owner_name=None if entry.uid == scene.sight.store.hidden_uid else user_name(entry.uid),
        age=scene.sight.now - entry.ctime,
        deriver=deriver,
        locks=locks,
        size=size,
        size_complete=complete,
    )


def locked_by(store_fd: int, base_name: str) -> Deriver | None:
    """The derivation and output that a lock file is called after; one whose `.drv` is there."""
    readings = [
        Deriver(reading.locked, reading.output)
        for reading in parse_lock_name(base_name)
        if reading.output is not None
    ]
    present = [r for r in readings if not is_gone(store_fd, r.derivation.base_name)]
    return next(iter(present or readings), None)


def _missing(store: Store, name: str) -> Finding:
    path = store.store_dir.join(name)
    repair = ThisStore(store.store_dir.path, store.state_dir).command(repair_path(path))
    reasons = (REPORT_ONLY[EntryKind.MISSING], f"to fetch or build it again: {repair}")
    return Finding(name, EntryKind.MISSING, Judgement(Verdict.KEEP, reasons))


def user_name(uid: int) -> str | None:
    """The name of that user, or None for a uid without one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
