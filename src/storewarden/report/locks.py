# SPDX-License-Identifier: MIT
"""Lock files for a tired person: held ones first, in blocks, or on a wide terminal in a table."""

from collections.abc import Iterable, Iterator, Sequence

from storewarden.explain.locks import LockFile, Role
from storewarden.readable import PLAIN, Mark, Style, count_text, shown
from storewarden.report.columns import lock_text, row
from storewarden.store.fact import Known

_ROLES = {
    Role.BUILD_USER: "a build user, taken by the build that runs as it",
    Role.COLLECTOR: "the garbage collector",
    Role.TEMP_ROOTS: "what a process uses that is not yet rooted",
    Role.PROFILE: "a profile, while a generation of it is made or deleted",
    Role.DATABASE: "the database, shared by all that have it open",
}
_STATE = 8
_BESIDE = 60
"""Columns that must be left beside the longest name for a table."""
_STATES = {"held": Mark.KEPT, "unknown": Mark.KEPT}
_POISONED = "POISONED"


def state_of(lock: LockFile) -> str:
    """`held`, `stale`, `free` or `unknown`. Stale: in the store, and nobody is seen to hold it."""
    match lock.held:
        case Known.YES:
            return "held"
        case Known.UNKNOWN:
            return "unknown"
        case Known.NO:
            return "stale" if lock.role is Role.STORE else "free"


def chosen(locks: Iterable[LockFile], *, everything: bool) -> list[LockFile]:
    """Those to show, held ones first: all, or those that may be why somebody waits."""
    order = {"held": 0, "unknown": 1, "stale": 2, "free": 3}
    roles = list(Role)
    kept = [lock for lock in locks if everything or _matters(lock)]
    return sorted(kept, key=lambda x: (order[state_of(x)], roles.index(x.role), x.path))


def _matters(lock: LockFile) -> bool:
    """Not what lies there free, and not what every process with the store open holds."""
    if lock.role is Role.STORE:
        return True
    return lock.held is Known.YES and lock.role is not Role.TEMP_ROOTS and not lock.shared


def lock_lines(locks: Sequence[LockFile], now: float, style: Style = PLAIN) -> Iterator[str]:
    """Each lock file with what it is for, then one line that sums them up."""
    longest = max((len(_short(lock)) for lock in locks), default=0)
    if style.width - _STATE - longest - 2 < _BESIDE:
        for lock in locks:
            yield from _block(lock, now, style)
            yield ""
    else:
        for lock in locks:
            yield from _line(lock, longest, now, style)
        if locks:
            yield ""
    yield _summary(locks)


def _block(lock: LockFile, now: float, style: Style) -> Iterator[str]:
    yield f"{_state(lock, style)}{style.mark(Mark.NAME, _short(lock))}"
    for label, text in _rows(lock, now):
        lead = _POISONED if text.startswith(_POISONED) else ""
        yield from row(label, text.removeprefix(lead), style, lead, Mark.WRONG)


def _line(lock: LockFile, longest: int, now: float, style: Style) -> Iterator[str]:
    name = _short(lock)
    beside = f"{'':{_STATE}}{name:<{longest}}  "
    # Of a lock in the store its name says already what it is for.
    said = [text for label, text in _rows(lock, now) if not (label and lock.role is Role.STORE)]
    text = "; ".join(said)
    first, *others = style.wrapped(beside, shown(text), " " * len(beside))
    named = f"{style.mark(Mark.NAME, name)}{'':{longest - len(name)}}"
    yield f"{_state(lock, style)}{named}{first[_STATE + longest :]}"
    yield from others


def _state(lock: LockFile, style: Style) -> str:
    state = state_of(lock)
    mark = Mark.WRONG if _is_poisoned(lock) else _STATES.get(state)
    return f"{style.mark(mark, state)}{'':{_STATE - len(state)}}"


def _is_poisoned(lock: LockFile) -> bool:
    return lock.role is Role.STORE and lock.held is Known.NO and bool(lock.size)


def _short(lock: LockFile) -> str:
    """In the store its base name, which fits a line."""
    return shown(lock.path.rpartition("/")[2] if lock.role is Role.STORE else lock.path)


def _rows(lock: LockFile, now: float) -> Iterator[tuple[str, str]]:
    if lock.deriver is not None:
        yield "for", f"output {lock.deriver.output} of {lock.deriver.derivation.base_name}"
    elif lock.covers:
        yield "for", lock.covers[0]
    else:
        yield "for", _ROLES.get(lock.role, "a path of the store")
    yield "", lock_text(lock, now)
    if _is_poisoned(lock):
        yield "", f"{_POISONED}: it is not empty, so Nix tries for ever to lock it"
        yield "", "storewarden explain tells how it goes"
    elif lock.role is Role.STORE and lock.held is Known.NO:
        yield "", "harmless: the next build of it takes it over"
    if lock.role is Role.STORE and lock.held is Known.YES and lock.rooted is None:
        yield "", "who waits for it can be seen by root"


def _summary(locks: Sequence[LockFile]) -> str:
    states = [state_of(lock) for lock in locks]
    counts = [f"{states.count(s)} {s}" for s in ("held", "unknown", "stale", "free") if s in states]
    if not counts:
        return "no lock files"
    return f"{count_text(len(locks), 'lock file')}: {', '.join(counts)}"
