# SPDX-License-Identifier: MIT
"""`storewarden setup`: plan, tell, do, verify; and the way back."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden.readable import PLAIN, Mark, Style, count_text
from storewarden.setup import darwin, linux, told
from storewarden.setup.code import CODE
from storewarden.setup.files import take_away
from storewarden.setup.guard import LOCK, SYSTEMD, at_work
from storewarden.setup.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from storewarden.setup.plan import (
    Keep,
    Remove,
    RemoveDirectory,
    Run,
    Step,
    intended,
    reached,
    removals,
    stale,
    take,
    writes,
)
from storewarden.setup.reach import check_reach
from storewarden.setup.wanted import Wanted, checks, wanted

_RESERVE = "/var/log/storewarden/audit.jsonl.reserve"
"""What the helper keeps for a full disk; of use to nobody without it."""
_AT_RUN_TIME = ("/run/storewarden/watch", "/run/storewarden/nix", "/run/storewarden")


@dataclass(frozen=True, slots=True)
class Order:
    """How setup was asked for."""

    top: str
    """A staging directory, or empty for this machine."""
    dry_run: bool
    as_json: bool
    say: Callable[[str], None]
    style: Style = PLAIN
    at: Callable[[str], None] = lambda _: None
    """Told of each step before it is taken, in a few words."""


def install(order: Order) -> None:
    """Set the service up; `SetupError` where that cannot be done.

    `HelperUnavailableError` where it was done, and the watcher's user reaches no helper that works.
    """
    with at_work(order.top, dry_run=order.dry_run):
        before = read_manifest(order.top) or Manifest()
        want = wanted(before, order.top)
        steps = _steps(want, before, order.top)
        _tell(order, steps, want.program.why)
        if order.dry_run:
            return
        if not before.ended or any(not isinstance(step, Keep) for step in steps):
            user = linux.USER if Run(("systemd-sysusers", linux.SYSUSERS)) in steps else ""
            begun = intended(before, steps, order.top, user)
            write_manifest(begun, order.top)
            _do(order, steps)
            write_manifest(reached(begun, want.items, steps, order.top), order.top)
        else:
            _do(order, steps)
            _say(order, "nothing to change: everything is as it should be")
        if not order.top:
            check_reach(want.program.python)
            _say(
                order,
                order.style.mark(Mark.WELL, "the watcher runs, and its user reaches the helper"),
            )


def uninstall(order: Order) -> None:
    """Take away what setup wrote and made, but for what was changed since, and the audit log."""
    with at_work(order.top, dry_run=order.dry_run):
        before = read_manifest(order.top)
        if before is None:
            with suppress(OSError):  # what a run leaves that is cut off at its very end
                os.rmdir(f"{order.top}{os.path.dirname(MANIFEST)}")
            _say(order, f"nothing to remove: there is no {order.top}{MANIFEST}")
            return
        steps = _steps_back(before, order.top)
        _tell(order, steps, "")
        if order.dry_run:
            return
        write_manifest(intended(before, [], order.top, ""), order.top)
        _do(order, steps)
        take_away(MANIFEST, order.top)
        for place in sorted(filter(_above_manifest, before.directories), reverse=True):
            with suppress(OSError):
                os.rmdir(f"{order.top}{place}")
        if not order.top:
            os.unlink(LOCK)
        _say(order, "removed; the audit log stays in /var/log/storewarden")


def _steps(want: Wanted, before: Manifest, top: str) -> list[Step]:
    """In this order a run that is cut off leaves nothing that runs half of it."""
    code = writes(want.program.items, before, top)
    others = writes(want.others, before, top)
    old = stale(want.paths, before, top)
    if top:
        return [*code, *others, *old, *want.keeps]
    # What runs until now keeps its code to its end.
    old_code = [step for step in old if step.path.startswith(CODE)]
    old = [step for step in old if step not in old_code]
    gone = any(isinstance(step, Remove) for step in old)
    changed = bool(code or others or gone) or not before.ended
    prove = checks(want.program) if code or not before.ended else []
    start = want.start(changed)
    files = [*code, *map(_run, prove), *others, *old]
    return [*files, *map(_run, start), *old_code, *want.keeps]


def _steps_back(before: Manifest, top: str) -> list[Step]:
    # What is set up first goes last: the command that can do this stays until near the end.
    files = removals(list(before.files), before, top)
    places: list[Step] = [
        RemoveDirectory(place)
        for place in sorted(before.directories, reverse=True)
        if not _above_manifest(place)
    ]
    if top:
        return [*files, *places]
    if sys.platform == "darwin":
        return [*map(_run, darwin.stop_words(darwin.person(os.environ))), *files, *places]
    reload: list[Step] = [Run(("systemctl", "daemon-reload"))] if os.path.exists(SYSTEMD) else []
    stop = linux.stop_words() if reload else []
    user: list[Step] = [Run(("userdel", before.user))] if before.user and linux.has_user() else []
    at_run_time = [RemoveDirectory(place) for place in _AT_RUN_TIME]
    files = [*files, Remove(_RESERVE)]
    return [*map(_run, stop), *files, *reload, *user, *places, *at_run_time]


def _above_manifest(directory: str) -> bool:
    return MANIFEST.startswith(f"{directory}/")


def _run(words: Sequence[str]) -> Step:
    return Run(tuple(words))


def _tell(order: Order, steps: Sequence[Step], why: str) -> None:
    if order.as_json:
        order.say(told.document(steps, why, dry_run=order.dry_run))
    elif order.dry_run:
        for line in told.lines(steps, order.style):
            order.say(line)
        order.say(f"{count_text(len(steps), 'step')}; with --dry-run none of them is taken")


def _do(order: Order, steps: Sequence[Step]) -> None:
    for line in told.lines(_counted(order, steps), order.style):
        _say(order, line)


def _counted(order: Order, steps: Sequence[Step]) -> Iterator[Step]:
    for number, step in enumerate(take(steps, order.top), 1):
        order.at(f"step {number} of {len(steps)}")
        yield step


def _say(order: Order, line: str) -> None:
    if not order.as_json:
        order.say(line)
