# SPDX-License-Identifier: MIT
"""`storewarden scan`: one sweep, shown for people and as JSON; removal on request."""

import argparse
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from storewarden.claims import PROOF, REMOVED_BY_DEFAULT, Verdict
from storewarden.cli import console
from storewarden.cli.options import REMOVAL, add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser, first_interrupt_waits, interrupt
from storewarden.client import HelperKilledError, by_hand, open_remover, removes_here, requests_for
from storewarden.config import Config
from storewarden.observe import Lock, open_store, this_store
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.readable import (
    PLAIN,
    REMOVE,
    Mark,
    Style,
    age_text,
    count_text,
    json_text,
    shown,
    size_text,
)
from storewarden.scan import Finding, Sweep, sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

_DESCRIPTION = """\
One sweep over the store. Shows what it finds; on a terminal it then offers to
remove what nothing claims. It needs no privilege to look.
examples:
  storewarden scan --dry-run
  sudo storewarden scan --yes
  storewarden scan --json | jq '.findings[].path'
"""
_VERDICTS = {
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
_ENDS = {
    Status.REMOVED: "removed",
    Status.VANISHED: "already gone",
    Status.KEPT: "kept",
    Status.PARTIAL: "removed in part",
    Status.FAILED: "failed",
}
_INDENT = "    "


def define_scan(command: Parser) -> None:
    """What it takes and does."""
    command.does(scan, _DESCRIPTION)
    add = command.add_argument
    add("-n", "--dry-run", action="store_true", help="only show; wins over --yes")
    add("-y", "--yes", action="store_true", help="remove without asking")
    add("--json", action="store_true", help=JSON)
    add(
        "--kind",
        action="append",
        metavar="KIND",
        choices=[kind.value for kind in EntryKind],
        help=f"only this kind, may be repeated: {', '.join(EntryKind)}",
    )
    add("--exit-code", action="store_true", help="exit with 1 if anything is found")
    add_options(command, *REMOVAL)


def scan(arguments: argparse.Namespace) -> int:
    """Sweep, show, and remove if that was agreed to; gives the exit code."""
    config = config_of(arguments)
    store = open_store(config, _asking)
    kinds = frozenset(map(EntryKind, arguments.kind or EntryKind))
    # A kind that is only reported by default is removed where it is named.
    removed = kinds & PROOF.keys() if arguments.kind else config.kinds
    with console.progress("looking for what is not registered"):
        found = sweep(store, kinds)
    for text in found.notes:
        console.note(text)
    if found.leftovers:
        console.note(f"an interrupted removal waits; this finishes it: {_by_root(config)}")
    requests = requests_for(found.findings, removed)
    asked = arguments.yes and not arguments.dry_run
    if not arguments.json:
        console.show(*sweep_lines(found, store, removed, console.style()))
        asked = asked or _agreed(arguments, requests)
        if requests and not asked:
            named = "".join(f" --kind {kind}" for kind in arguments.kind or ())
            console.note(f"to remove what can go: {_by_root(config, named)}")
    outcomes = _repaired(arguments, config, store, found, requests) if asked else None
    if arguments.json:
        console.show(sweep_json(found, store, outcomes))
    elif outcomes:
        console.show(done_line(outcomes))
    return _exit_code(arguments, found, outcomes or [])


def _by_root(config: Config, options: str = "") -> str:
    return this_store(config).command(f"{REMOVE}{options}")


def _asking(asked: int, every: int) -> None:
    console.tell(f"asking Nix about {count_text(every, 'path')}, {asked} done")


def _agreed(arguments: argparse.Namespace, requests: tuple[RemoveRequest, ...]) -> bool:
    """Whether a person at a terminal says yes; nobody is asked anywhere else."""
    at_terminal = all(s is not None and s.isatty() for s in (sys.stdin, sys.stdout))
    if not requests or arguments.dry_run or not at_terminal:
        return False
    try:
        return input(f"Remove these {len(requests)}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _repaired(
    arguments: argparse.Namespace,
    config: Config,
    store: Store,
    found: Sweep,
    requests: tuple[RemoveRequest, ...],
) -> list[Outcome]:
    """What became of each, told as it happens. Ctrl-C ends it after the batch at work."""
    # Also where nothing lies about: a run that was killed may have left an open intent.
    begun = found.leftovers or os.path.exists(config.audit_log)
    if not requests and not (begun and removes_here(store)):
        return []
    with first_interrupt_waits(
        "interrupted; the next run finishes what was begun",
        lambda: console.note("finishing what was begun; Ctrl-C again to leave it to the next run"),
    ) as interrupted:
        remove = open_remover(config, store, by_hand(), stopped=lambda: bool(interrupted))
        try:
            done = _followed(arguments, store, remove(requests), len(requests))
        except HelperKilledError as cause:
            interrupt(f"interrupted: {cause}")
    if interrupted:
        interrupt("interrupted; what is listed was done, the rest is untouched")
    return done


def _followed(
    arguments: argparse.Namespace, store: Store, outcomes: Iterator[Outcome], every: int
) -> list[Outcome]:
    done: list[Outcome] = []
    taken: list[str] = []
    look = console.style()
    with console.progress(f"proving {every} dead" if every else "finishing an interrupted removal"):
        for outcome in outcomes:
            if not arguments.json:
                console.show(outcome_line(outcome, store.store_dir, look))
            if outcome.status is Status.TAKEN:
                taken.append(outcome.base_name)
            else:
                done.append(outcome)
                taken = [name for name in taken if name != outcome.base_name]
            if taken:
                console.tell(f"removing {taken[0]}, {len(taken)} left")
    return done


def _exit_code(arguments: argparse.Namespace, found: Sweep, outcomes: list[Outcome]) -> int:
    if found.nix_silent:
        console.error(f"Nix could not be asked, so nothing can be removed: {found.nix_silent}")
        return Exit.UNREADABLE
    bad = {Status.FAILED, Status.PARTIAL}
    if any(outcome.status in bad or outcome.unproved for outcome in outcomes):
        return Exit.NOT_ALL
    return Exit.FOUND if arguments.exit_code and found.findings else Exit.OK


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
    lead, mark = _verdict(finding)
    for reason in finding.judgement.reasons:
        yield from style.wrapped(_INDENT, f": {shown(reason)}", _INDENT * 2, lead, mark)
    if finding.kind is EntryKind.CHROOT and finding.judgement.verdict is not Verdict.KEEP:
        yield f"{_INDENT}only when asked for: --kind chroot"


def _verdict(finding: Finding) -> tuple[str, Mark | None]:
    if finding.kind not in PROOF:
        return "only reported", None
    verdict = finding.judgement.verdict
    return _VERDICTS[verdict], Mark.KEPT if verdict is Verdict.KEEP else Mark.WELL


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
    return style.folded("", text, _INDENT, _DONE[outcome.status], console.MARKS[outcome.status])


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
