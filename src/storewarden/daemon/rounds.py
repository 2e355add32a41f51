# SPDX-License-Identifier: MIT
"""One round of the service's work: look, decide, have removed. No waiting here."""

import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace

from storewarden.claims import PROOF, Claim, Verdict
from storewarden.config import Mode
from storewarden.daemon.removals import finish_begun, have_removed
from storewarden.daemon.suspects import Suspect, alive, refused, young
from storewarden.daemon.work import Work, fail, problem, touch
from storewarden.errors import StorewardenError
from storewarden.findings import Finding
from storewarden.kept_open import database_kept_open
from storewarden.repair import requests_for
from storewarden.scan import sweep, sweep_among
from storewarden.strays import glance

_PLAIN = frozenset({Claim.PATH_LOCK, Claim.USER_LOCK, Claim.PROCESS, Claim.ORPHAN})
"""Claims whose end a mere glance shows."""
_LASTING = frozenset({Claim.SHARED, Claim.MOUNT})
"""Claims that nobody alive need stand behind, so they may hold for ever."""
_AHEAD_SECONDS = 60.0
"""What changed so far in the future did so before the clock was set back; it may take years."""


def sweep_all(work: Work) -> None:
    """Look at the whole store."""
    began = time.monotonic()
    try:
        with database_kept_open(work.store):
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
        seen = glance(work.store, {name: work.suspects[name].covering for name in names})
        rest = set(names) - seen.alive - seen.gone - seen.others
        with database_kept_open(work.store) if rest else nullcontext():
            found = sweep_among(work.store, rest, tuple(PROOF)) if rest else None
    except StorewardenError as cause:
        problem(work, "store", str(cause))
        for name in names:
            fail(work, name, (str(cause),))
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


def _deal_with(work: Work, findings: Collection[Finding]) -> None:
    repairs = work.config.mode is Mode.REPAIR
    requests = requests_for(findings, work.config.kinds) if repairs else ()
    if len(requests) > work.config.max_removals:
        text = f"{len(requests)} entries would be removed, max-removals allows"
        text += f" {work.config.max_removals}; nothing is; see: storewarden scan --dry-run"
        problem(work, "fuse", text)
    blown = "fuse" in work.problems
    if blown:
        requests = ()
    requested = {request.base_name for request in requests}
    now = time.monotonic()
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
            continue
        suspect = work.suspects.get(finding.base_name) or Suspect(finding.base_name, now)
        work.suspects[finding.base_name] = replace(suspect, covering=finding.covering)
    have_removed(work, requests)
    touch(work, [finding for finding in findings if finding.base_name in requested])


def _keep(work: Work, finding: Finding) -> None:
    """When to look again at what is not to be removed now."""
    name, now = finding.base_name, time.monotonic()
    claims = set(finding.judgement.claims)
    if finding.kind not in work.config.kinds or finding.judgement.verdict is not Verdict.KEEP:
        work.suspects.pop(name, None)
        return
    suspect = replace(work.suspects.get(name) or Suspect(name, now), covering=finding.covering)
    age = finding.age or 0.0
    lasting = _LASTING if age > -_AHEAD_SECONDS else _LASTING | {Claim.TOO_YOUNG}
    if claims & _PLAIN:
        work.suspects[name] = alive(suspect, now)
    elif claims == {Claim.TOO_YOUNG} and not claims & lasting:
        work.suspects[name] = young(suspect, now, work.store.least_age - age)
    elif claims - lasting:
        work.suspects[name] = refused(suspect, now)
    else:
        fail(work, name, finding.judgement.reasons)
