# SPDX-License-Identifier: MIT
"""One sweep: what lies in the store directory and is not registered, and what claims it.

Needs no privilege, takes no lock, writes nothing. What this user cannot see is unknown, and the
notes say so.
"""

import os
import pwd
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from storewarden.claims import PROOF, REPORT_ONLY, Claim, Judgement, Verdict, judge
from storewarden.copyable import ThisStore, repair_path
from storewarden.errors import StoreUnreadableError
from storewarden.findings import Finding, Sweep
from storewarden.limits import limits
from storewarden.registrations import list_names
from storewarden.sight import Sight, look_around
from storewarden.sizes import tree_size
from storewarden.store.entries import (
    Entry,
    EntryKind,
    open_directory,
)
from storewarden.store.fact import NO, Fact, Known
from storewarden.store.paths import (
    Deriver,
    Origin,
    StoreDir,
    StorePath,
    covered_paths,
    parse_lock_name,
    path_lock,
)
from storewarden.store.store import Store
from storewarden.strays import Found, Looked, Strays, entries_of, is_gone, strays, strays_among

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
    looked = entries_of(store, store_fd, wanted.names, names)
    found = looked.found
    scene = _scene(store, store_fd, wanted, looked)
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
    origins: Mapping[StorePath, Origin]
    sight: Sight


def _scene(store: Store, store_fd: int, wanted: Strays, looked: Looked) -> _Scene:
    found = looked.found
    asked = [path for entry, _ in found if (path := entry.store_path) is not None]
    return _Scene(
        store_fd=store_fd,
        in_database=wanted.in_database,
        answers=store.ask_nix(asked) if asked else {},
        origins=looked.origins,
        sight=look_around(store, store_fd, {entry.uid for entry, _ in found}),
    )


def _findings(scene: _Scene, found: Sequence[Found], unseen: Collection[str]) -> list[Finding]:
    """Lock files last: one that covers a kept entry is kept with it."""
    findings: list[Finding] = []
    kept: dict[str, str] = {}
    for entry, kind in sorted(found, key=lambda pair: pair[1] is EntryKind.LOCK):
        finding = _finding(scene, entry, kind, _covers(scene, entry, kind, kept, unseen))
        if finding is None:
            continue
        findings.append(finding)
        if finding.judgement.verdict is Verdict.KEEP and kind is not EntryKind.LOCK:
            path = entry.store_path
            origin = scene.origins.get(path) if path else None
            locks = [*([path_lock(path)] if path else ()), *(origin.locks if origin else ())]
            kept |= dict.fromkeys(locks, entry.base_name)
    return findings


def _covers(
    scene: _Scene,
    entry: Entry,
    kind: EntryKind,
    kept: Mapping[str, str],
    unseen: Collection[str],
) -> Fact:
    """Whether a lock file covers what is kept, or what cannot be looked at and so may be there."""
    if kind is not EntryKind.LOCK:
        return NO
    covered = covered_paths(entry.base_name, scene.sight.store.store_dir)
    hidden = (path.base_name for path in covered if path.base_name in unseen)
    found = kept.get(entry.base_name) or next(hidden, None)
    return Fact(Known.YES, found) if found else NO


def _finding(scene: _Scene, entry: Entry, kind: EntryKind, covers: Fact) -> Finding | None:
    """The finding of one entry; None if it has been registered since the database was read."""
    path = entry.store_path
    nix = scene.answers.get(path, Fact(Known.UNKNOWN)) if path else Fact(Known.UNKNOWN)
    if nix.known is Known.YES:
        return None
    origin = scene.origins.get(path) if path else None
    if kind is EntryKind.LOCK:
        deriver = locked_by(
            scene.store_fd, entry.base_name, scene.origins, scene.sight.store.store_dir
        )
    else:
        deriver = origin.deriver if origin else None
    covering = scene.sight.covering(entry, kind, origin)
    facts = {
        **scene.sight.facts(entry, kind, origin, covering),
        Claim.VALID_TO_NIX: nix,
        Claim.VALID_IN_DATABASE: scene.in_database,
        Claim.COVERS: covers,
    }
    size, complete = tree_size(scene.store_fd, entry) if kind in PROOF else (None, False)
    return Finding(
        base_name=entry.base_name,
        kind=kind,
        judgement=judge(kind, origin, facts),
        entry=entry,
        owner_name=None if entry.uid == scene.sight.store.hidden_uid else user_name(entry.uid),
        age=scene.sight.now - entry.ctime,
        deriver=deriver,
        locks=scene.sight.locks(entry, covering) if kind in PROOF else (),
        covering=covering,
        size=size,
        size_complete=complete,
    )


def locked_by(
    store_fd: int, base_name: str, origins: Mapping[StorePath, Origin], store_dir: StoreDir
) -> Deriver | None:
    """The derivation and output whose build takes a lock file of that name, as far as is known.

    `origins` are those of the paths that it may lock.
    """
    readings = [
        Deriver(reading.locked, reading.output)
        for reading in parse_lock_name(base_name)
        if reading.output is not None
    ]
    present = [r for r in readings if not is_gone(store_fd, r.derivation.base_name)]
    covered = covered_paths(base_name, store_dir)
    known = [origins[path].deriver for path in covered if path in origins]
    return next(iter(present or known or readings), None)


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
