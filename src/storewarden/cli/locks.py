# SPDX-License-Identifier: MIT
"""`storewarden locks`: who holds which of Nix's locks, and who waits.

Held ones first, in blocks, or on a wide terminal in a table.
"""

import argparse
import os
import time
from collections.abc import Iterable, Iterator, Sequence

from storewarden.cli import console
from storewarden.cli.options import STORE, add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser
from storewarden.explain.locks import (
    POISONED,
    LockFile,
    Role,
    all_locks,
    hidden_places,
    lock_json,
    lock_rows,
)
from storewarden.observe import Observation, observe, open_store, this_store
from storewarden.readable import PLAIN, Mark, Style, ThisStore, count_text, json_text, shown
from storewarden.store.store import Known, Store

_DESCRIPTION = """\
Lists lock files, held ones first. It takes no lock and needs no privilege; who
waits for one only root can see.
examples:
  storewarden locks
  sudo storewarden locks
  storewarden locks --json | jq '.locks[] | select(.held == "yes")'
"""
_STATE = 8
_BESIDE = 60
"""Columns that must be left beside the longest name for a table."""
_STATES = {"held": Mark.KEPT, "unknown": Mark.KEPT, "stale": None, "free": None}
"""In the order in which they are shown."""


def define_locks(command: Parser) -> None:
    """What it takes and does."""
    command.does(_locks, _DESCRIPTION)
    add = command.add_argument
    add("--all", action="store_true", help="also those that always lie there, free")
    add("--json", action="store_true", help=JSON)
    add_options(command, *STORE)


def _locks(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    store, this = open_store(config), this_store(config)
    with console.progress("looking at the lock files"), observe(store) as seen:
        seen.check_place()
        found = chosen(all_locks(seen), everything=arguments.all)
        notes = list(_notes(seen, found, this))
    if arguments.json:
        console.show(locks_json(found, store, notes))
    else:
        console.show(*lock_lines(found, time.time(), console.style()))
    for text in notes:
        console.note(text)
    return Exit.OK


def _notes(seen: Observation, found: Sequence[LockFile], this: ThisStore) -> Iterator[str]:
    as_root = this.command("sudo storewarden locks")
    if seen.flocks is None:
        yield "who holds a lock cannot be seen here: there is no table of locks for it"
    for place in hidden_places(seen.store.state_dir):
        yield f"{place} cannot be listed by this user: {as_root}"
    if any(lock.rooted is None for lock in found) and os.geteuid() != 0:
        yield f"who waits can be seen by root: {as_root}"


def chosen(locks: Iterable[LockFile], *, everything: bool) -> list[LockFile]:
    """Those to show, held ones first: all, or those that may be why somebody waits."""
    states, roles = list(_STATES), list(Role)
    kept = [lock for lock in locks if everything or _matters(lock)]
    return sorted(kept, key=lambda x: (states.index(x.state), roles.index(x.role), x.path))


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
    for label, text in lock_rows(lock, now):
        lead = POISONED if text.startswith(POISONED) else ""
        yield from style.row(label, text.removeprefix(lead), lead, Mark.WRONG)


def _line(lock: LockFile, longest: int, now: float, style: Style) -> Iterator[str]:
    name = _short(lock)
    beside = f"{'':{_STATE}}{name:<{longest}}  "
    # Of a lock in the store its name says already what it is for.
    texts = [
        text for label, text in lock_rows(lock, now) if not (label and lock.role is Role.STORE)
    ]
    text = "; ".join(texts)
    first, *others = style.wrapped(beside, shown(text), " " * len(beside))
    named = f"{style.mark(Mark.NAME, name)}{'':{longest - len(name)}}"
    yield f"{_state(lock, style)}{named}{first[_STATE + longest :]}"
    yield from others


def _state(lock: LockFile, style: Style) -> str:
    state = lock.state
    mark = Mark.WRONG if lock.poisoned else _STATES[state]
    return f"{style.mark(mark, state)}{'':{_STATE - len(state)}}"


def _short(lock: LockFile) -> str:
    """In the store its base name, which fits a line."""
    return shown(lock.path.rpartition("/")[2] if lock.role is Role.STORE else lock.path)


def _summary(locks: Sequence[LockFile]) -> str:
    states = [lock.state for lock in locks]
    counts = [f"{states.count(s)} {s}" for s in _STATES if s in states]
    if not counts:
        return "no lock files"
    return f"{count_text(len(locks), 'lock file')}: {', '.join(counts)}"


def locks_json(locks: Iterable[LockFile], store: Store, notes: Iterable[str]) -> str:
    """The document of `storewarden locks --json`."""
    return json_text(
        {
            "storeDir": store.store_dir.path,
            "stateDir": store.state_dir,
            "locks": [lock_json(lock, store.store_dir.path) for lock in locks],
            "notes": list(notes),
        }
    )
