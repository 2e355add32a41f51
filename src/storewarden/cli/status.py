# SPDX-License-Identifier: MIT
"""`storewarden status`: does the service run, what did it do, what does it need (docs/json.md)."""

import argparse
import itertools
import time
from collections.abc import Iterator, Sized
from dataclasses import replace

from storewarden.cli.console import page, show, style
from storewarden.cli.options import add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser, ended_by_ctrl_c
from storewarden.daemon.starting import Starting, how_started
from storewarden.daemon.status import (
    BUILT_ON_REMAINS,
    PLACES,
    SILENCE,
    Doubtful,
    Removed,
    ServiceStatus,
    Stuck,
    is_held,
    other_version,
    read_status,
)
from storewarden.readable import (
    PLAIN,
    Mark,
    Style,
    age_text,
    check_again,
    count_text,
    json_text,
    kinds_text,
    local_time,
    make_anew,
    members,
    moment,
    shown,
    size_text,
    typed,
)

_DESCRIPTION = """\
Reads what the service last said. It needs no privilege.
examples:
  storewarden status
  storewarden status --follow
  storewarden status --json | jq .status.stuck
"""
_MOST, _MOST_RECENT = 10, 5
"""Stuck entries, and removals, that are shown where not all are asked for."""
_LOOK_SECONDS = 1.0
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
    add = command.add_argument
    add("--all", action="store_true", help=f"all that it lists, not only {_MOST} that are stuck")
    add("-f", "--follow", action="store_true", help="go on, and show each removal as it comes")
    add("--json", action="store_true", help=JSON)
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
        most = None if arguments.all else _MOST
        starting = how_started()
        lines = status_lines(status, now, style(), most, running=running, starting=starting)
        if arguments.follow and running:
            show(*lines)
            with ended_by_ctrl_c():
                _follow(config.runtime_dir, status)
        else:
            page(lines)
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


def _follow(runtime_dir: str, status: ServiceStatus | None) -> None:
    """Show each removal that the service tells of, until it ends or Ctrl-C."""
    seen, look = status.recent if status else (), style()
    while is_held(runtime_dir):
        time.sleep(_LOOK_SECONDS)
        status = read_status(runtime_dir)
        recent = status.recent if status else ()
        if status:
            show(*(_recent_line(one, look) for one in recent if one not in seen))
        seen = recent


def _recent_line(one: Removed, style: Style, indent: str = "") -> str:
    much = f" ({count_text(one.files, 'file')}, {size_text(one.bytes)})" if one.files else ""
    text = f" {shown(one.name)}{much}"
    begin = f"{indent}{local_time(one.time)}  "
    return style.folded(begin, text, f"{indent}    ", "removed", Mark.WELL)


def status_lines(
    status: ServiceStatus | None,
    now: float,
    style: Style = PLAIN,
    most: int | None = None,
    *,
    running: bool,
    starting: Starting,
) -> Iterator[str]:
    """First whether it runs, then what it does, then each thing that needs somebody.

    Of what is stuck at most so many; `starting` is how the service is started on this machine.
    """
    yield from _headline(status, now, style, running=running)
    if not running:
        yield from _how_to_start(starting, style)
    if status is None:
        return
    for word, text in _rows(status, now):
        yield from style.wrapped(f"  {word:<8}  ", shown(text), " " * 12)
    recent = status.recent if most is None else status.recent[-_MOST_RECENT:]
    for one in reversed(recent):
        yield _recent_line(one, style, "    ")
    yield from _stuck_lines(status, now, style, most)
    for where, text in status.problems.items():
        yield ""
        lead = f"PROBLEM ({shown(where)}):"
        yield from style.wrapped("", f" {shown(typed(text))}", "    ", lead, Mark.WRONG)
        if where in _NEXT:
            yield from style.wrapped("    next: ", typed(_NEXT[where]), " " * 10)
    if running and (other := other_version(status)):
        yield ""
        yield from style.wrapped("", f"note: {other}", "    ")
        yield f"    to have it run this one, too: {style.mark(Mark.NAME, typed(starting.set_up))}"
    yield from _doubtful_lines(status, now, style, most)
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
            last = "it ended when it was told to," if status.ended else "the last heard of it was"
            text = f"; {last} on {moment(status.updated, now)}"
    yield from style.wrapped("", text, "  ", lead, mark)


def status_json(status: ServiceStatus | None, *, running: bool) -> str:
    """The same as one JSON object; names as in the other documents."""
    document = status and {
        **members(status),
        "problems": {where: typed(text) for where, text in status.problems.items()},
        "stuck": [_stuck_json(one, status) for one in status.stuck],
        "recent": [_recent_json(one, status) for one in status.recent],
        "doubtful": [_doubtful_json(one, status) for one in status.doubtful],
    }
    return json_text({"running": running, "status": document})


def _how_to_start(starting: Starting, style: Style) -> Iterator[str]:
    if starting.hindered:
        yield from style.wrapped("  ", starting.hindered, "  ")
    for words, advised in starting.advice():
        command = typed(advised)
        told = f"  {words:<27} "
        if len(told) + len(command) > style.width:
            yield told.rstrip()
            told = " " * 4
        yield f"{told}{style.mark(Mark.NAME, command)}"


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
    yield "found", f"{kinds_text(status.found)} in that sweep"
    if status.watched:
        entries = count_text(status.watched, "entry")
        yield "watched", f"{entries}, young or claimed; looked at again soon"
    freed = f", {size_text(status.removed_bytes)}" if status.removed_bytes else ""
    yield "removed", f"{kinds_text(status.removed)} since its start{freed}"
    if status.refused:
        yield "refused", f"{count_text(status.refused, 'time')}: the helper kept what was asked for"
    if status.failed:
        see = typed("storewarden audit log")
        yield "failed", f"{count_text(status.failed, 'time')}: see {see}"
    if status.overflows:
        times = count_text(status.overflows, "time")
        yield "lost", f"count of the changes {times}, each mended by a sweep"


def _stuck_lines(
    status: ServiceStatus, now: float, style: Style, most: int | None
) -> Iterator[str]:
    if not status.stuck_count:
        return
    yield ""
    text = f" {status.stuck_count} should go and could not be removed"
    yield from style.wrapped("", text, "  ", "STUCK:", Mark.WRONG)
    told = list(itertools.islice(status.stuck, most))
    for one in told:
        yield f"  {style.mark(Mark.NAME, shown(_path(one, status)))}"
        text = f"{shown(one.kind)}, first tried on {moment(one.since, now)}"
        yield from style.wrapped("    ", text, " " * 6)
        for reason in one.reasons:
            yield from style.wrapped("    ", shown(reason), " " * 6)
    yield from _rest(status.stuck_count, told, status.stuck)
    yield from style.wrapped("    next: ", typed(_STUCK_NEXT), " " * 10)


def _stuck_json(one: Stuck, status: ServiceStatus) -> dict[str, object]:
    reasons = list(one.reasons)
    return {"path": _path(one, status), "kind": one.kind, "since": one.since, "reasons": reasons}


def _recent_json(one: Removed, status: ServiceStatus) -> dict[str, object]:
    told = members(one)
    del told["name"]
    return {"path": _path(one, status), **told}


def _rest(count: int, told: Sized, listed: Sized) -> Iterator[str]:
    if rest := count - len(told):
        yield f"  ... {rest} more{': --all' if len(told) < len(listed) else ''}"


def _doubtful_lines(
    status: ServiceStatus, now: float, style: Style, most: int | None
) -> Iterator[str]:
    if not status.doubtful_count:
        return
    yield ""
    some = count_text(status.doubtful_count, "valid path")
    lead = "DOUBTFUL:"
    yield from style.wrapped("", f" {some}, each {BUILT_ON_REMAINS}", "    ", lead, Mark.WRONG)
    told = list(itertools.islice(status.doubtful, most))
    for one in told:
        path, drv = _path(one, status), f"{status.store_dir}/{one.derivation}"
        yield f"  {style.mark(Mark.NAME, shown(path))}"
        yield f"    {shown(one.output)} of {shown(one.derivation)}, {moment(one.since, now)}"
        yield f"    to check it:   {style.mark(Mark.NAME, typed(check_again(drv)))}"
        yield f"    to replace it: {style.mark(Mark.NAME, typed(make_anew(path, drv)))}"
    yield from _rest(status.doubtful_count, told, status.doubtful)
    yield from style.wrapped("    next: ", typed(_DOUBTFUL_NEXT), " " * 10)


def _doubtful_json(one: Doubtful, status: ServiceStatus) -> dict[str, object]:
    drv = f"{status.store_dir}/{one.derivation}"
    return {"path": _path(one, status), "deriver": drv, "output": one.output, "since": one.since}


def _path(one: Stuck | Removed | Doubtful, status: ServiceStatus) -> str:
    return f"{status.store_dir}/{one.name}"
