# SPDX-License-Identifier: MIT
"""Lock files for a tired person: held ones first, in 80 columns."""

from collections.abc import Iterable, Iterator, Sequence

from storewarden.columns import lock_text, row
from storewarden.locks import LockFile, Role
from storewarden.report import shown
from storewarden.store.verdict import Known

_ROLES = {
    Role.BUILD_USER: "a build user, taken by the build that runs as it",
    Role.COLLECTOR: "the garbage collector",
    Role.TEMP_ROOTS: "what a process uses that is not yet rooted",
    Role.PROFILE: "a profile, while a generation of it is made or deleted",
    Role.DATABASE: "the database, shared by all that have it open",
}


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


def lock_lines(locks: Sequence[LockFile], now: float) -> Iterator[str]:
    """Each lock file with what it is for, then one line that sums them up."""
    for lock in locks:
        yield f"{state_of(lock):<8}{shown(_short(lock))}"
        for label, text in _rows(lock, now):
            yield from row(label, text)
        yield ""
    yield _summary(locks)


def _short(lock: LockFile) -> str:
    """In the store its base name, which fits a line."""
    return lock.path.rpartition("/")[2] if lock.role is Role.STORE else lock.path


def _rows(lock: LockFile, now: float) -> Iterator[tuple[str, str]]:
    if lock.deriver is not None:
        yield "for", f"output {lock.deriver.output} of {lock.deriver.derivation.base_name}"
    elif lock.covers:
        yield "for", lock.covers[0]
    else:
        yield "for", _ROLES.get(lock.role, "a path of the store")
    yield "", lock_text(lock, now)
    if lock.role is Role.STORE and lock.held is Known.NO:
        yield (
            "",
            "harmless: the next build of it takes it over"
            if not lock.size
            else ("POISONED: it is not empty, so Nix tries for ever to lock it"),
        )
    if lock.role is Role.STORE and lock.held is Known.YES and lock.rooted is None:
        yield "", "who waits for it can be seen by root"


def _summary(locks: Sequence[LockFile]) -> str:
    states = [state_of(lock) for lock in locks]
    counts = [f"{states.count(s)} {s}" for s in ("held", "unknown", "stale", "free") if s in states]
    return f"{len(locks)} lock file(s): {', '.join(counts)}" if counts else "no lock files"
