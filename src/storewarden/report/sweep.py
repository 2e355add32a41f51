# SPDX-License-Identifier: MIT
"""Findings and outcomes, for people and as JSON (docs/json.md)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from storewarden.claims import PROOF, REMOVED_BY_DEFAULT, Verdict
from storewarden.findings import Finding, Sweep
from storewarden.protocol import Outcome, Status
from storewarden.readable import (
    PLAIN,
    Mark,
    Style,
    age_text,
    count_text,
    json_text,
    shown,
    size_text,
)
from storewarden.sight import Lock
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

_SAID = {
    Verdict.KEEP: "kept",
    Verdict.CANDIDATE: "no sign of life, root still has to check",
    Verdict.REMOVABLE: "removable",
}
_DONE = {
    Status.TAKEN: "out of the store",
    Status.REMOVED: "removed",
    Status.VANISHED: "already gone",
    Status.KEPT: "kept",
    Status.PARTIAL: "out of the store, but not all of it could be removed",
    Status.FAILED: "FAILED",
}
MARKS = {
    Status.TAKEN: Mark.WELL,
    Status.REMOVED: Mark.WELL,
    Status.VANISHED: Mark.WELL,
    Status.KEPT: Mark.KEPT,
    Status.PARTIAL: Mark.WRONG,
    Status.FAILED: Mark.WRONG,
}
_ENDS = {
    Status.REMOVED: "removed",
    Status.VANISHED: "already gone",
    Status.KEPT: "kept",
    Status.PARTIAL: "removed in part",
    Status.FAILED: "failed",
}
_INDENT = "    "


def sweep_lines(
    sweep: Sweep,
    store: Store,
    removed: Collection[EntryKind] = REMOVED_BY_DEFAULT,
    style: Style = PLAIN,
) -> Iterator[str]:
    """The sweep for a person: each finding, then one line that sums it up.

    `removed` are the kinds that are removed if nothing claims them.
    """
    for finding in sweep.findings:
        yield from _finding_lines(finding, store.store_dir, style)
        yield ""
    yield style.folded("", _summary(sweep.findings, store, removed), _INDENT)


def _finding_lines(finding: Finding, store_dir: StoreDir, style: Style) -> Iterator[str]:
    yield style.mark(Mark.NAME, shown(store_dir.join(finding.base_name)))
    facts = [_what(finding)]
    if finding.entry is not None:
        name = finding.owner_name or "without a name"
        facts.append(f"owner {shown(name)} (uid {finding.entry.uid})")
    if finding.age is not None:
        facts.append(f"last changed {age_text(finding.age)} ago")
    if finding.size is not None and finding.kind is not EntryKind.LOCK:
        least = "" if finding.size_complete else "at least "
        facts.append(f"{least}{size_text(finding.size)}")
    yield from style.wrapped(_INDENT, ", ".join(facts), _INDENT)
    said, mark = _said(finding)
    for reason in finding.judgement.reasons:
        yield from style.wrapped(_INDENT, f": {shown(reason)}", _INDENT * 2, said, mark)
    if finding.kind is EntryKind.CHROOT and finding.judgement.verdict is not Verdict.KEEP:
        yield f"{_INDENT}only when asked for: --kind chroot"


def _said(finding: Finding) -> tuple[str, Mark | None]:
    if finding.kind not in PROOF:
        return "only reported", None
    verdict = finding.judgement.verdict
    return _SAID[verdict], Mark.KEPT if verdict is Verdict.KEEP else Mark.WELL


def _what(finding: Finding) -> str:
    kind = "lock file" if finding.kind is EntryKind.LOCK else finding.kind.value
    if finding.deriver is None:
        return kind
    return f"{kind} of {shown(finding.deriver.derivation.base_name)} ({finding.deriver.output})"


def _summary(findings: Sequence[Finding], store: Store, removed: Collection[EntryKind]) -> str:
    if not findings:
        return f"nothing unregistered found in {store.store_dir.path}"
    going = [f for f in findings if f.judgement.verdict is not Verdict.KEEP and f.kind in removed]
    kept = sum(f.judgement.verdict is Verdict.KEEP and f.kind in PROOF for f in findings)
    reported = len(findings) - len(going) - kept
    size = sum(finding.size or 0 for finding in going)
    text = f"{len(findings)} found in {store.store_dir.path}: {kept} kept"
    text += f", {reported} only reported" if reported else ""
    if not going:
        return text
    # A large tree is not measured to its end, and of what has other links nothing becomes free.
    measured = all(finding.size_complete for finding in going)
    much = f"up to {size_text(size)}" if measured else f"at least {size_text(size)} on disk"
    return f"{text}, {len(going)} can go ({much})"


def outcome_line(outcome: Outcome, store_dir: StoreDir, style: Style = PLAIN) -> str:
    """What became of one entry, in one line; on a terminal it may be folded."""
    text = f": {shown(store_dir.join(outcome.base_name))}"
    if outcome.status is Status.REMOVED and outcome.files + outcome.directories > 1:
        text += f" ({count_text(outcome.files, 'file')}, {size_text(outcome.bytes)})"
    if outcome.reasons:
        text += f": {shown('; '.join(outcome.reasons))}"
    return style.folded("", text, _INDENT, _DONE[outcome.status], MARKS[outcome.status])


def done_line(outcomes: Sequence[Outcome]) -> str:
    """How it ended, in one line: how many were removed, and what became of the others."""
    freed = size_text(sum(outcome.bytes for outcome in outcomes))
    counts = [(status, sum(o.status is status for o in outcomes)) for status in _ENDS]
    return ", ".join(
        f"{count} {_ENDS[status]}" + (f" ({freed} freed)" if status is Status.REMOVED else "")
        for status, count in counts
        if count or status is Status.REMOVED
    )


def sweep_json(sweep: Sweep, store: Store, outcomes: Iterable[Outcome] | None) -> str:
    """The sweep, and what was done about it if anything was to be, as one JSON object."""
    document: dict[str, object] = {
        "storeDir": store.store_dir.path,
        "stateDir": store.state_dir,
        "findings": [_finding_json(finding, store.store_dir) for finding in sweep.findings],
        "notes": list(sweep.notes),
    }
    if outcomes is not None:
        kinds = {finding.base_name: finding.kind.value for finding in sweep.findings}
        document["outcomes"] = [
            _outcome_json(outcome, store.store_dir, kinds) for outcome in outcomes
        ]
    return json_text(document)


def _finding_json(finding: Finding, store_dir: StoreDir) -> dict[str, object]:
    entry, deriver = finding.entry, finding.deriver
    return {
        "path": store_dir.join(finding.base_name),
        "kind": finding.kind.value,
        "verdict": finding.judgement.verdict.value,
        "reasons": list(finding.judgement.reasons),
        "owner": entry and {"uid": entry.uid, "gid": entry.gid, "name": finding.owner_name},
        "ageSeconds": None if finding.age is None else int(finding.age),
        "deriver": deriver and store_dir.join(deriver.derivation.base_name),
        "output": deriver and deriver.output,
        "locks": [_lock_json(lock, store_dir) for lock in finding.locks],
        "sizeBytes": finding.size,
        "sizeComplete": finding.size_complete,
    }


def _lock_json(lock: Lock, store_dir: StoreDir) -> dict[str, object]:
    holder = None if lock.pid is None else {"pid": lock.pid, "command": lock.command}
    return {"path": store_dir.join(lock.base_name), "held": lock.held.value, "holder": holder}


def _outcome_json(
    outcome: Outcome, store_dir: StoreDir, kinds: Mapping[str, str]
) -> dict[str, object]:
    return {
        "path": store_dir.join(outcome.base_name),
        "kind": kinds.get(outcome.base_name),
        "status": outcome.status.value,
        "reasons": list(outcome.reasons),
        "files": outcome.files,
        "directories": outcome.directories,
        "bytes": outcome.bytes,
    }
