# SPDX-License-Identifier: MIT
"""What a sweep found: counts and reasons first, then entries; for people and as JSON."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from storewarden.claims import PROOF, REMOVED_BY_DEFAULT, Verdict
from storewarden.observe import Lock
from storewarden.protocol import Outcome
from storewarden.readable import (
    PLAIN,
    Mark,
    Style,
    age_text,
    json_text,
    kinds_text,
    shown,
    size_text,
)
from storewarden.scan import Finding, Sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store

MOST = 10
"""Entries that are shown where not all are asked for."""
_MOST_REASONS = 5
_INDENT = "    "
_VERDICTS = {
    Verdict.REMOVABLE: ("can go", Mark.WELL),
    Verdict.CANDIDATE: ("looks dead; root must confirm", Mark.WELL),
    Verdict.KEEP: ("kept", Mark.KEPT),
}
"""What is said of an entry of a kind that can be proved dead."""
_REPORTED = "only reported"
_SEEN = " ("
"""Behind it a reason tells what was seen of that very entry (`claims.explain`)."""


@dataclass(frozen=True, slots=True)
class Group:
    """Findings of which one thing is to be said."""

    title: str
    """Behind how many they are."""
    mark: Mark | None
    findings: tuple[Finding, ...]

    @property
    def bytes(self) -> int:
        """What they take on disk, as far as it was measured."""
        return sum(finding.size or 0 for finding in self.findings)

    @property
    def measured(self) -> bool:
        """Whether that is all of it."""
        return all(finding.size_complete for finding in self.findings)

    @property
    def told(self) -> tuple[str, ...]:
        """The reasons that all of them have, and that the summary has told in full."""
        reasons = {finding.judgement.reasons for finding in self.findings}
        same = reasons.pop() if len(reasons) == 1 else ()
        return same if len(same) == 1 and _SEEN not in same[0] else ()

    @property
    def kinds(self) -> dict[str, int]:
        """How many there are of each kind."""
        return _counts(self.findings)


@dataclass(frozen=True, slots=True)
class Groups:
    """The findings of a sweep, by what becomes of them."""

    removable: Group
    candidate: Group
    kept: Group
    reported: Group

    @property
    def going(self) -> tuple[Finding, ...]:
        """What nothing seen claims, of the kinds that are removed."""
        return self.removable.findings + self.candidate.findings

    def __iter__(self) -> Iterator[Group]:
        """Those with findings, in the order in which they are told."""
        every = (self.removable, self.candidate, self.kept, self.reported)
        return iter([group for group in every if group.findings])


def grouped(
    findings: Sequence[Finding], removed: Collection[EntryKind] = REMOVED_BY_DEFAULT
) -> Groups:
    """The findings by what becomes of them, where `removed` are the kinds that are removed."""

    def of(verdict: Verdict) -> tuple[Finding, ...]:
        wanted = PROOF if verdict is Verdict.KEEP else removed
        some = [f for f in findings if f.judgement.verdict is verdict and f.kind in wanted]
        # A lock file says least: what it covers comes first.
        return tuple(sorted(some, key=lambda finding: finding.kind is EntryKind.LOCK))

    removable, candidate, kept = map(of, (Verdict.REMOVABLE, Verdict.CANDIDATE, Verdict.KEEP))
    elsewhere = {finding.base_name for finding in (*removable, *candidate, *kept)}
    rest = tuple(finding for finding in findings if finding.base_name not in elsewhere)
    looks = "looks" if len(candidate) == 1 else "look"
    return Groups(
        Group("can go", Mark.WELL, removable),
        Group(f"{looks} dead; root must confirm", Mark.WELL, candidate),
        Group("kept", Mark.KEPT, kept),
        Group(_REPORTED, None, rest),
    )


def much_text(findings: Iterable[Finding]) -> str:
    """How much goes with those; empty where that is nothing, as of lock files.

    A large tree is not measured to its end, and of what has other links nothing becomes free.
    """
    some = tuple(findings)
    size = sum(finding.size or 0 for finding in some)
    if not all(finding.size_complete for finding in some):
        return f"at least {size_text(size)} on disk"
    return f"up to {size_text(size)}" if size else ""


def sweep_lines(
    sweep: Sweep,
    store: Store,
    removed: Collection[EntryKind] = REMOVED_BY_DEFAULT,
    style: Style = PLAIN,
    most: int | None = None,
) -> Iterator[str]:
    """The sweep for a person: what it comes to, then the entries, at most so many of them.

    Where they are more, that is said; but for 0, which asks for none.

    `removed` are the kinds that are removed if nothing claims them.
    """
    groups = grouped(sweep.findings, removed)
    if sweep.findings:
        yield from summary_lines(groups, store, style)
    else:
        seen = ", as far as can be seen here" if sweep.notes else ""
        yield f"nothing unregistered found in {store.store_dir.path}{seen}"
    entries = [(finding, group.told) for group in groups for finding in group.findings]
    for finding, told in itertools.islice(entries, most):
        yield from _finding_lines(finding, told, store.store_dir, style)
    if most and len(entries) > most:
        yield f"... {len(entries) - most} more: --all"


def summary_lines(groups: Groups, store: Store, style: Style = PLAIN) -> Iterator[str]:
    """How many there are, by what becomes of them and why."""
    every = sum(len(group.findings) for group in groups)
    yield f"{every} found in {store.store_dir.path}"
    for group in groups:
        count = f"  {len(group.findings):>{len(str(every))}} "
        texts = [kinds_text(group.kinds)]
        if group.mark is Mark.WELL:
            texts.append(much_text(group.findings))
        text = f": {', '.join(filter(None, texts))}"
        yield from style.wrapped(count, text, " " * len(count), group.title, group.mark)
        yield from _reasons(group.findings, " " * (len(count) + 2), style)


def _reasons(findings: Sequence[Finding], indent: str, style: Style) -> Iterator[str]:
    """Why, each reason once: without what was seen of each entry, which is told of that."""
    firsts = Counter(finding.judgement.reasons[0].partition(_SEEN)[0] for finding in findings)
    told = [] if len(firsts) > _MOST_REASONS else firsts.most_common()
    for reason, count in told:
        often = f"{count} x " if len(firsts) > 1 else ""
        yield from style.wrapped(indent, f"{often}{shown(reason)}", f"{indent}  ")
    if not told:
        yield f"{indent}for {len(firsts)} different reasons"


def _finding_lines(
    finding: Finding, told: tuple[str, ...], store_dir: StoreDir, style: Style
) -> Iterator[str]:
    """One entry; the reasons that are told already are left out."""
    yield style.mark(Mark.NAME, shown(store_dir.join(finding.base_name)))
    facts = [_what(finding)]
    if finding.entry is not None:
        name = finding.owner_name
        owner = f"{shown(name)} (uid {finding.entry.uid})" if name else f"uid {finding.entry.uid}"
        facts.append(f"owner {owner}")
    if finding.age is not None:
        facts.append(f"last changed {age_text(finding.age)} ago")
    if finding.size is not None and finding.kind is not EntryKind.LOCK:
        least = "" if finding.size_complete else "at least "
        facts.append(f"{least}{size_text(finding.size)}")
    provable = finding.kind in PROOF
    lead, mark = _VERDICTS[finding.judgement.verdict] if provable else (_REPORTED, None)
    yield from style.wrapped(_INDENT, f": {', '.join(facts)}", _INDENT * 2, lead, mark)
    if finding.judgement.reasons != told:
        for reason in finding.judgement.reasons:
            yield from style.wrapped(_INDENT * 2, shown(reason), _INDENT * 3)
    if finding.kind is EntryKind.CHROOT and finding.judgement.verdict is not Verdict.KEEP:
        yield f"{_INDENT * 2}only when asked for: --kind chroot"


def _what(finding: Finding) -> str:
    kind = "lock file" if finding.kind is EntryKind.LOCK else finding.kind.value
    if finding.deriver is None:
        return kind
    return f"{kind} of {shown(finding.deriver.derivation.base_name)} ({finding.deriver.output})"


def _counts(findings: Iterable[Finding]) -> dict[str, int]:
    return dict(sorted(Counter(finding.kind.value for finding in findings).items()))


def sweep_json(
    sweep: Sweep,
    store: Store,
    outcomes: Iterable[Outcome] | None,
    removed: Collection[EntryKind] = REMOVED_BY_DEFAULT,
) -> str:
    """The sweep, and what was done about it if anything was to be, as one JSON object."""
    document: dict[str, object] = {
        "storeDir": store.store_dir.path,
        "stateDir": store.state_dir,
        "summary": summary_json(grouped(sweep.findings, removed)),
        "findings": [_finding_json(finding, store.store_dir) for finding in sweep.findings],
        "notes": list(sweep.notes),
    }
    if outcomes is not None:
        kinds = {finding.base_name: finding.kind.value for finding in sweep.findings}
        document["outcomes"] = [
            _outcome_json(outcome, store.store_dir, kinds) for outcome in outcomes
        ]
    return json_text(document)


def summary_json(groups: Groups) -> dict[str, object]:
    """How many there are, by what becomes of them, and what those take that may go."""
    return {
        "removable": len(groups.removable.findings),
        "candidate": len(groups.candidate.findings),
        "kept": len(groups.kept.findings),
        "reported": len(groups.reported.findings),
        "bytes": groups.removable.bytes + groups.candidate.bytes,
        "bytesComplete": groups.removable.measured and groups.candidate.measured,
    }


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
