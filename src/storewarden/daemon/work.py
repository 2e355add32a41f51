# SPDX-License-Identifier: MIT
"""What the service remembers from round to round."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from storewarden.config import Config
from storewarden.daemon.suspects import Suspect, failed, noticed, released
from storewarden.findings import Finding
from storewarden.repair import Remove
from storewarden.store.entries import EntryKind
from storewarden.store.paths import LOCK_SUFFIX, covered_paths
from storewarden.store.store import Store

_TOUCHED_SECONDS = 1.0


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
    touched: dict[str, float] = field(default_factory=dict)
    """Lock files that removals have taken, and until when their being closed says nothing."""
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
            work.suspects[name] = noticed(name, now, work.store.least_age)


def release(work: Work, locks: Iterable[str]) -> None:
    """Look at once at what these locks covered: whoever held one has let go of it, or has ended."""
    now = time.monotonic()
    work.touched = {lock: until for lock, until in work.touched.items() if until > now}
    free = set(locks) - work.touched.keys()
    covered = {
        path.base_name for lock in free for path in covered_paths(lock, work.store.store_dir)
    }
    looked = covered | free
    for name, suspect in work.suspects.items() if free else ():
        if name in looked or not free.isdisjoint(suspect.covering or ()):
            work.suspects[name] = released(suspect, now)


def touch(work: Work, findings: Iterable[Finding]) -> None:
    """Let the locks of these wake nobody for a moment: a removal has taken them and let go."""
    until = time.monotonic() + _TOUCHED_SECONDS
    for finding in findings:
        own = f"{finding.base_name}{LOCK_SUFFIX}"
        locks = (finding.base_name, own, *(finding.covering or ()))
        work.touched |= dict.fromkeys(locks, until)


def fail(work: Work, name: str, reasons: tuple[str, ...]) -> None:
    """Remember that an entry should go and could not, and why; told when the reasons change."""
    now = time.monotonic()
    before = work.suspects.get(name) or Suspect(name, now)
    kind = work.known.get(name, EntryKind.OUTPUT).value
    if before.reasons != reasons:
        path = work.store.store_dir.join(name)
        work.log.warning("not removed", path=path, reasons="; ".join(reasons))
    work.suspects[name] = failed(before, now, time.time(), kind, reasons)
