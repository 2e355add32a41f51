# SPDX-License-Identifier: MIT
"""One round of the service's work: look, decide, have removed, remember. No waiting here."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from structlog.typing import FilteringBoundLogger

from storewarden.config import Config, Mode
from storewarden.findings import Finding
from storewarden.repair import Remove, repair, requests_for
from storewarden.scan import sweep, sweep_among
from storewarden.store.entries import EntryKind
from storewarden.store.errors import StorewardenError
from storewarden.store.paths import LOCK_SUFFIX
from storewarden.store.store import Store
from storewarden.store.verdict import PROOF, Claim, Verdict
from storewarden.store.wire import Outcome, RemoveRequest, Status
from storewarden.strays import glance
from storewarden.suspects import Suspect, alive, failed, noticed, refused, young

_PLAIN = frozenset({Claim.USER_LOCK, Claim.PROCESS})
"""Claims whose end a mere glance shows."""
_LASTING = frozenset({Claim.SHARED, Claim.MOUNT})
"""Claims that nobody alive need stand behind, so they may hold for ever."""


@dataclass(slots=True)
class Work:
    """All that the service remembers; `config`, `store` and `remove` change with a reload."""

    config: Config
    store: Store
    remove: Remove
    log: FilteringBoundLogger
    pulse: Callable[[], None]
    """Called now and then during long work."""
    ended: Callable[[], bool]
    """Whether to end: nothing new is begun then."""
    suspects: dict[str, Suspect] = field(default_factory=dict)
    known: dict[str, EntryKind] = field(default_factory=dict)
    """What was found and has not gone since."""
    problems: dict[str, str] = field(default_factory=dict)
    helper: Suspect = field(default_factory=lambda: Suspect("", float("inf")))
    """When to ask the helper again for what it may have left unfinished, if it failed."""
    removed: Counter[str] = field(default_factory=Counter)
    removed_bytes: int = 0
    refused: int = 0
    failed: int = 0
    sweeps: int = 0
    swept: float | None = None
    sweep_seconds: float = 0.0
    overflows: int = 0


def problem(work: Work, where: str, text: str) -> None:
    """Remember what is wrong there now, or with "" that nothing is; told when that changes."""
    before = work.problems.get(where, "")
    if text == before:
        return
    if text:
        work.problems[where] = text
        work.log.error("problem", where=where, text=text)
    else:
        del work.problems[where]
        work.log.info("problem over", where=where)


def notice(work: Work, names: Iterable[str]) -> None:
    """Look at these entries soon. One that is looked at already keeps its time: no event delays."""
    now = time.monotonic()
    for name in names:
        if name not in work.suspects:
            work.suspects[name] = noticed(name, now, work.config.min_age)


def sweep_all(work: Work) -> None:
    """Look at the whole store."""
    began = time.monotonic()
    try:
        found = sweep(work.store)
    except StorewardenError as cause:
        problem(work, "store", str(cause))
        return
    problem(work, "store", "")
    problem(work, "nix", found.nix_silent)
    for note in () if work.sweeps else found.notes:
        work.log.warning("limited", text=note)
    work.sweeps, work.swept = work.sweeps + 1, time.time()
    work.sweep_seconds = time.monotonic() - began
    here = {finding.base_name for finding in found.findings}
    for name in work.known.keys() - here:
        del work.known[name]
    if len(requests_for(found.findings, work.config.kinds)) <= work.config.max_removals:
        problem(work, "fuse", "")
    _deal_with(work, found.findings)
    if found.leftovers:
        finish_begun(work)


def look_again(work: Work, names: Collection[str]) -> None:
    """Look at those suspects."""
    now = time.monotonic()
    try:
        seen = glance(work.store, names)
        rest = set(names) - seen.alive - seen.gone - seen.others
        found = sweep_among(work.store, rest, tuple(PROOF)) if rest else None
    except StorewardenError as cause:
        problem(work, "store", str(cause))
        for name in names:
            _fail(work, name, (str(cause),))
        return
    problem(work, "store", "")
    for name in seen.alive:
        work.suspects[name] = alive(work.suspects[name], now)
    findings = found.findings if found else ()
    for name in {*seen.gone, *seen.others, *rest} - {finding.base_name for finding in findings}:
        work.suspects.pop(name, None)
        if name not in seen.others:
            work.known.pop(name, None)
    if found:
        problem(work, "nix", found.nix_silent)
        _deal_with(work, findings)


def finish_begun(work: Work) -> None:
    """Have what an earlier run left behind removed, and learn whether that can be done at all."""
    if work.config.mode is Mode.REPAIR:
        _have_removed(work, ())
    else:
        problem(work, "helper", "")
        work.helper = Suspect("", float("inf"))


def _deal_with(work: Work, findings: Collection[Finding]) -> None:
    requests: tuple[RemoveRequest, ...] = ()
    if work.config.mode is Mode.REPAIR:
        requests = requests_for(findings, work.config.kinds)
    if len(requests) > work.config.max_removals:
        text = f"{len(requests)} entries would be removed, max-removals allows"
        text += f" {work.config.max_removals}; nothing is; see: storewarden scan --dry-run"
        problem(work, "fuse", text)
    blown = "fuse" in work.problems
    if blown:
        requests = ()
    requested = {request.base_name for request in requests}
    for finding in findings:
        if finding.base_name not in work.known and finding.kind in PROOF and not blown:
            work.log.info(
                "found",
                path=work.store.store_dir.join(finding.base_name),
                kind=finding.kind.value,
                verdict=finding.judgement.verdict.value,
                reasons="; ".join(finding.judgement.reasons),
            )
        work.known[finding.base_name] = finding.kind
        if finding.base_name not in requested:
            _keep(work, finding)
    _have_removed(work, requests)


def _keep(work: Work, finding: Finding) -> None:
    """When to look again at what is not to be removed now."""
    name, now = finding.base_name, time.monotonic()
    claims = set(finding.judgement.claims)
    if finding.kind not in work.config.kinds or finding.judgement.verdict is not Verdict.KEEP:
        work.suspects.pop(name, None)
        return
    suspect = work.suspects.get(name) or Suspect(name, now)
    if claims & _PLAIN:
        work.suspects[name] = alive(suspect, now)
    elif claims == {Claim.TOO_YOUNG}:
        missing = work.config.min_age - (finding.age or 0.0)
        work.suspects[name] = young(suspect, now, missing)
    elif claims - _LASTING:
        work.suspects[name] = refused(suspect, now)
    else:
        _fail(work, name, finding.judgement.reasons)


def _have_removed(work: Work, requests: tuple[RemoveRequest, ...]) -> None:
    if work.ended():
        return
    waiting = {request.base_name for request in requests}
    partial = []
    try:
        outcomes = repair(requests, work.remove, work.ended) if requests else work.remove(())
        for outcome in outcomes:
            work.pulse()
            _conclude(work, outcome)
            if outcome.status is Status.PARTIAL:
                partial.append(f"{outcome.base_name}: {'; '.join(outcome.reasons)}")
            if outcome.status is not Status.TAKEN:
                waiting.discard(outcome.base_name)
    except StorewardenError as cause:
        problem(work, "helper", str(cause))
        work.helper = refused(work.helper, time.monotonic())
        for name in waiting:
            _fail(work, name, (str(cause),))
    else:
        problem(work, "helper", "")
        work.helper = Suspect("", float("inf"))
        # Every run begins with what earlier ones left, and so tells of all of it.
        problem(work, "leftovers", partial[0] if partial else "")


def _conclude(work: Work, outcome: Outcome) -> None:
    name = outcome.base_name
    now = time.monotonic()
    suspect = work.suspects.get(name) or Suspect(name, now)
    told = {"path": work.store.store_dir.join(name)}
    if outcome.reasons:
        told["reasons"] = "; ".join(outcome.reasons)
    match outcome.status:
        case Status.TAKEN:
            work.log.info("taken out of the store", **told)
        case Status.REMOVED:
            kind = work.known.pop(name, EntryKind.OUTPUT)
            work.removed[kind] += 1
            work.removed_bytes += outcome.bytes
            work.suspects.pop(name, None)
            _wake_locks(work)
            work.log.info("removed", **told, kind=kind.value, files=outcome.files)
        case Status.VANISHED:
            work.known.pop(name, None)
            work.suspects.pop(name, None)
        case Status.KEPT if not outcome.unproved:
            work.refused += 1
            work.suspects[name] = refused(suspect, now)
            if not suspect.waited:
                work.log.info("kept", **told)
        case Status.KEPT:
            work.refused += 1
            _fail(work, name, outcome.reasons)
        case Status.FAILED:
            work.failed += 1
            _fail(work, name, outcome.reasons)
        case Status.PARTIAL:
            work.failed += 1
            work.known.pop(name, None)
            work.suspects.pop(name, None)


def _wake_locks(work: Work) -> None:
    """Look at lock files at once: what they cover may have been what has just gone."""
    now = time.monotonic()
    for name, suspect in work.suspects.items():
        if name.endswith(LOCK_SUFFIX) and suspect.waited:
            work.suspects[name] = replace(suspect, due=now)


def _fail(work: Work, name: str, reasons: tuple[str, ...]) -> None:
    now = time.monotonic()
    before = work.suspects.get(name) or Suspect(name, now)
    kind = work.known.get(name, EntryKind.OUTPUT).value
    if before.reasons != reasons:
        path = work.store.store_dir.join(name)
        work.log.warning("not removed", path=path, reasons="; ".join(reasons))
    work.suspects[name] = failed(before, now, time.time(), kind, reasons)
