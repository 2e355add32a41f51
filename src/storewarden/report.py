# SPDX-License-Identifier: MIT
"""Findings, outcomes and the audit log, for people and as JSON (docs/json.md)."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from storewarden.auditlog import Record, Verification
from storewarden.config import Config, said
from storewarden.findings import Finding, Sweep
from storewarden.sight import Lock
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store
from storewarden.store.verdict import PROOF, REMOVED_BY_DEFAULT, Verdict
from storewarden.store.wire import Outcome, Status

VERSION = 1
_KIB = 1024
_AGES = ((86400 * 2, 86400, "days"), (7200, 3600, "h"), (120, 60, "min"), (0, 1, "s"))
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


def shown(text: str) -> str:
    """Text that a builder may have chosen, safe for a terminal: only printable ASCII is left."""
    return "".join(c if c.isprintable() and c.isascii() else ascii(c)[1:-1] for c in text)


def size_text(count: int) -> str:
    """Bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < _KIB:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} GiB"


def age_text(seconds: float) -> str:
    """A length of time as people read it."""
    for least, unit, name in _AGES:
        if seconds >= least:
            return f"{seconds / unit:.0f} {name}"
    return "less than 0 s"


def sweep_lines(
    sweep: Sweep, store: Store, removed: Collection[EntryKind] = REMOVED_BY_DEFAULT
) -> Iterator[str]:
    """The sweep for a person: each finding, then one line that sums it up.

    `removed` are the kinds that are removed if nothing claims them.
    """
    for finding in sweep.findings:
        yield from _finding_lines(finding, store.store_dir)
        yield ""
    yield _summary(sweep.findings, store, removed)


def _finding_lines(finding: Finding, store_dir: StoreDir) -> Iterator[str]:
    yield shown(store_dir.join(finding.base_name))
    facts = [_what(finding)]
    if finding.entry is not None:
        name = finding.owner_name or "a user without a name"
        facts.append(f"owner {shown(name)} (uid {finding.entry.uid})")
    if finding.age is not None:
        facts.append(f"last changed {age_text(finding.age)} ago")
    if finding.size is not None and finding.kind is not EntryKind.LOCK:
        least = "" if finding.size_complete else "at least "
        facts.append(f"{least}{size_text(finding.size)}")
    yield f"    {', '.join(facts)}"
    said = _SAID[finding.judgement.verdict] if finding.kind in PROOF else "only reported"
    for reason in finding.judgement.reasons:
        yield f"    {said}: {shown(reason)}"
    if finding.kind is EntryKind.CHROOT and finding.judgement.verdict is not Verdict.KEEP:
        yield "    only when asked for: --kind chroot"


def _what(finding: Finding) -> str:
    kind = "lock file" if finding.kind is EntryKind.LOCK else finding.kind.value
    if finding.deriver is None:
        return kind
    return f"{kind} of {shown(finding.deriver.derivation.base_name)} ({finding.deriver.output})"


def _summary(findings: Sequence[Finding], store: Store, removed: Collection[EntryKind]) -> str:
    if not findings:
        return f"nothing unregistered found in {store.store_dir.path}"
    going = [f for f in findings if f.judgement.verdict is not Verdict.KEEP and f.kind in removed]
    size = sum(finding.size or 0 for finding in going)
    kept = len(findings) - len(going)
    text = f"{len(findings)} found in {store.store_dir.path}: {kept} kept"
    return f"{text}, {len(going)} can go (up to {size_text(size)})" if going else text


def outcome_line(outcome: Outcome, store_dir: StoreDir) -> str:
    """What became of one entry, in one line."""
    text = f"{_DONE[outcome.status]}: {shown(store_dir.join(outcome.base_name))}"
    if outcome.status is Status.REMOVED and outcome.files + outcome.directories > 1:
        text += f" ({outcome.files} files, {size_text(outcome.bytes)})"
    return f"{text}: {shown('; '.join(outcome.reasons))}" if outcome.reasons else text


def sweep_json(sweep: Sweep, store: Store, outcomes: Iterable[Outcome] | None) -> str:
    """The sweep, and what was done about it if anything was to be, as one JSON object."""
    document: dict[str, object] = {
        "version": VERSION,
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
    return json.dumps(document, indent=2)


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


def record_line(record: Record) -> str:
    """One audit record in one line."""
    match record:
        case {"action": "intent", "name": name, "kind": kind, "uid": uid, "requester": dict(who)}:
            text = f"to remove {kind} {name} of uid {uid}, asked by uid {who.get('uid')}"
            if who.get("via"):
                text += f" {who['via']}"
            if record.get("deriver"):
                text += f"; output {record['output']} of {record['deriver']}"
        case {"action": "result" | "resumed", "name": name, "status": status}:
            again = " (an interrupted removal was finished)" if record.get("resumed") else ""
            text = f"{status} {name}{again}"
            if record.get("files"):
                text += f", {record['files']} files, {size_text(int(str(record['bytes'])))}"
            for reason in _texts(record.get("reasons")):
                text += f"; {reason}"
        case {"action": "recovered"}:
            text = f"{record.get('torn_bytes')} torn bytes stand before this record"
        case _:
            text = ""
    return shown(f"{record.get('seq'):>6}  {record.get('time')}  {record.get('action'):<9}  {text}")


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def verification_lines(verification: Verification) -> Iterator[str]:
    """What `audit verify` found, for a person."""
    if verification.problem:
        yield f"DAMAGED: {shown(verification.problem)}"
        yield f"{verification.records} records before it are whole and in order"
        return
    yield f"{verification.records} records in {len(verification.files)} file(s), all in order"
    if verification.open_intents:
        yield f"{verification.open_intents} removal(s) begun and not ended; the next run ends them"
    yield f"head {verification.head}"


def config_lines(config: Config) -> Iterator[str]:
    """All of a configuration, defaults too, as it may be written in the file."""
    for key, value in said(config).items():
        yield f"{key} = {json.dumps(value)}"


def config_json(config: Config) -> str:
    """The same as one JSON object; lengths of time as in the file."""
    return json.dumps({"version": VERSION, "config": said(config)}, indent=2)
