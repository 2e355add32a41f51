# SPDX-License-Identifier: MIT
"""`storewarden status`: does the service run, what did it do, what does it need (docs/json.md)."""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from storewarden import host
from storewarden.cli.console import show, style
from storewarden.cli.options import add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser
from storewarden.daemon.status import (
    BUILT_ON_REMAINS,
    PLACES,
    SILENCE,
    Doubtful,
    ServiceStatus,
    Stuck,
    is_held,
    read_status,
)
from storewarden.readable import (
    DECLARE,
    PLAIN,
    SET_UP,
    Mark,
    Style,
    age_text,
    check_again,
    count_text,
    json_text,
    make_anew,
    members,
    moment,
    shown,
    size_text,
)

_DESCRIPTION = """\
Reads what the service last said. It needs no privilege.
examples:
  storewarden status
  storewarden status --json | jq .status.stuck
"""
_MODES = {
    "report": "report: debris is only reported",
    "repair": "repair: what is proved dead is removed",
}
_NEXT = {
    "service": "restart it with the service manager; its log says what it was doing",
    **PLACES,
}
"""What to do about a problem, by where it is; only who reads the status can notice the first."""
_DOUBTFUL_NEXT = (
    "check them: Nix itself says nothing and ends with 0, whatever comes out, but what comes out"
    " the same is not told here any more; the others replace"
)
_STUCK_NEXT = (
    "sudo storewarden scan --dry-run says what keeps each of them now; once that is mended they go"
    " by themselves, or: sudo storewarden scan --yes"
)


def define_status(command: Parser) -> None:
    """What it takes and does."""
    command.does(_status, _DESCRIPTION)
    command.add_argument("--json", action="store_true", help=JSON)
    add_options(command, "config")


def _status(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    running = is_held(config.runtime_dir)
    status, now = read_status(config.runtime_dir), time.time()
    if status and running:
        status = noticed(status, now)
    if arguments.json:
        show(status_json(status, running=running))
    else:
        set_up = DECLARE if host.declared_by() else SET_UP
        show(*status_lines(status, now, style(), running=running, set_up=set_up))
    if not running:
        return Exit.UNAVAILABLE
    return Exit.NOT_ALL if status and needs_somebody(status) else Exit.OK


def needs_somebody(status: ServiceStatus) -> bool:
    """Whether there is anything that does not mend itself."""
    return bool(status.stuck_count or status.doubtful_count or status.problems)


def noticed(status: ServiceStatus, now: float) -> ServiceStatus:
    """The status of a running service, and what only its reader can notice among its problems."""
    silence = now - status.updated
    if silence <= SILENCE:
        return status
    text = f"it runs, but has said nothing for {age_text(silence)}; it may hang"
    return replace(status, problems={**status.problems, "service": text})


def status_lines(
    status: ServiceStatus | None,
    now: float,
    style: Style = PLAIN,
    *,
    running: bool,
    set_up: str = SET_UP,
) -> Iterator[str]:
    """First whether it runs, then what it does, then each thing that needs somebody.

    `set_up` is how the service is set up on this machine.
    """
    yield from _headline(status, now, style, running=running)
    if not running:
        yield f"  to have it run from now on: {style.mark(Mark.NAME, set_up)}"
        yield f"  to run it here, by hand:    {style.mark(Mark.NAME, 'storewarden watch')}"
    if status is None:
        return
    for word, text in _rows(status, now):
        yield from style.wrapped(f"  {word:<8}  ", shown(text), " " * 12)
    yield from _stuck_lines(status, now, style)
    for where, text in status.problems.items():
        yield ""
        lead = f"PROBLEM ({shown(where)}):"
        yield from style.wrapped("", f" {shown(text)}", "    ", lead, Mark.WRONG)
        if where in _NEXT:
            yield from style.wrapped("    next: ", _NEXT[where], " " * 10)
    yield from _doubtful_lines(status, now, style)
    if running and not needs_somebody(status):
        yield style.mark(Mark.WELL, "all is well")


def _headline(
    status: ServiceStatus | None, now: float, style: Style, *, running: bool
) -> Iterator[str]:
    lead, mark = ("storewarden is running", Mark.WELL) if running else ("NOT RUNNING", Mark.WRONG)
    match status:
        case None:
            text = " and has said nothing yet" if running else ""
        case _ if running:
            text = f" since {moment(status.started, now)}"
        case _:
            text = f"; the last heard of it was on {moment(status.updated, now)}"
    yield from style.wrapped("", text, "  ", lead, mark)


def status_json(status: ServiceStatus | None, *, running: bool) -> str:
    """The same as one JSON object; names as in the other documents."""
    document = status and {
        **members(status),
        "stuck": [_stuck_json(one, status) for one in status.stuck],
        "doubtful": [_doubtful_json(one, status) for one in status.doubtful],
    }
    return json_text({"running": running, "status": document})


def _rows(status: ServiceStatus, now: float) -> Iterator[tuple[str, str]]:
    yield "process", str(status.pid)
    yield "mode", _MODES.get(status.mode, status.mode)
    wakes = f", told of changes by {status.wakes}" if status.wakes else ""
    yield "store", f"{status.store_dir}{wakes}"
    if status.swept is None:
        yield "swept", "not yet; the first look at the whole store is still to come"
    else:
        last = f"the last on {moment(status.swept, now)}, in {status.sweep_seconds:.2f} s"
        yield "swept", f"{count_text(status.sweeps, 'time')}, {last}"
    yield "found", f"{_counts(status.found)} in that sweep"
    if status.watched:
        yield "suspects", f"{status.watched} young or claimed; looked at again soon"
    freed = f", {size_text(status.removed_bytes)}" if status.removed_bytes else ""
    yield "removed", f"{_counts(status.removed)} since its start{freed}"
    if status.refused:
        yield "refused", f"{count_text(status.refused, 'time')}: the helper kept what was asked for"
    if status.failed:
        yield "failed", f"{count_text(status.failed, 'time')}: see storewarden audit show"
    if status.overflows:
        times = count_text(status.overflows, "time")
        yield "lost", f"count of the changes {times}, each mended by a sweep"


def _stuck_lines(status: ServiceStatus, now: float, style: Style) -> Iterator[str]:
    if not status.stuck_count:
        return
    yield ""
    stuck = style.mark(Mark.WRONG, "STUCK:")
    yield f"{stuck} {status.stuck_count} should go and could not be removed"
    for one in status.stuck:
        yield f"  {style.mark(Mark.NAME, shown(_path(one, status)))}"
        yield f"    {shown(one.kind)}, first tried on {moment(one.since, now)}"
        for reason in one.reasons:
            yield from style.wrapped("    ", shown(reason), " " * 6)
    if unlisted := status.stuck_count - len(status.stuck):
        yield f"  and {unlisted} more"
    yield from style.wrapped("    next: ", _STUCK_NEXT, " " * 10)


def _stuck_json(one: Stuck, status: ServiceStatus) -> dict[str, object]:
    reasons = list(one.reasons)
    return {"path": _path(one, status), "kind": one.kind, "since": one.since, "reasons": reasons}


def _doubtful_lines(status: ServiceStatus, now: float, style: Style) -> Iterator[str]:
    if not status.doubtful_count:
        return
    yield ""
    some = count_text(status.doubtful_count, "valid path")
    lead = "DOUBTFUL:"
    yield from style.wrapped("", f" {some}, each {BUILT_ON_REMAINS}", "    ", lead, Mark.WRONG)
    for one in status.doubtful:
        path, drv = _path(one, status), f"{status.store_dir}/{one.derivation}"
        yield f"  {style.mark(Mark.NAME, shown(path))}"
        yield f"    {shown(one.output)} of {shown(one.derivation)}, {moment(one.since, now)}"
        yield f"    to check it:   {style.mark(Mark.NAME, check_again(drv))}"
        yield f"    to replace it: {style.mark(Mark.NAME, make_anew(path, drv))}"
    if unlisted := status.doubtful_count - len(status.doubtful):
        yield f"  and {unlisted} more"
    yield from style.wrapped("    next: ", _DOUBTFUL_NEXT, " " * 10)


def _doubtful_json(one: Doubtful, status: ServiceStatus) -> dict[str, object]:
    drv = f"{status.store_dir}/{one.derivation}"
    return {"path": _path(one, status), "deriver": drv, "output": one.output, "since": one.since}


def _path(one: Stuck | Doubtful, status: ServiceStatus) -> str:
    return f"{status.store_dir}/{one.name}"


def _counts(counts: Mapping[str, int]) -> str:
    some = [f"{count} {kind}" for kind, count in counts.items() if count]
    return ", ".join(some) or "nothing"
