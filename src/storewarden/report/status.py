# SPDX-License-Identifier: MIT
"""What the service last said of itself, for a tired person and as JSON (docs/json.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from storewarden.copyable import SET_UP
from storewarden.daemon.status import SILENCE, Status, Stuck
from storewarden.readable import (
    PLAIN,
    Mark,
    Style,
    age_text,
    count_text,
    json_text,
    moment,
    shown,
    size_text,
)

_MODES = {
    "report": "report: debris is only reported",
    "repair": "repair: what is proved dead is removed",
}
_NEXT = {
    "service": "restart it with the service manager; its log says what it was doing",
    "store": "is it mounted, are store-dir and state-dir right? storewarden scan --dry-run",
    "nix": "does nix-daemon run? storewarden scan --dry-run says what Nix answers",
    "helper": "storewarden doctor says what to do; or by hand: sudo storewarden scan --yes",
    "leftovers": "it is tried again; what became of it: storewarden audit show",
    "put-back": "a build may miss it; it is tried again soon; whose: storewarden audit show",
    "configuration": "mend the file, then: storewarden check-config",
    "fuse": "look: storewarden scan --dry-run; if all of it may go: sudo storewarden scan --yes",
    "wakes": "nothing is lost, changes are only noticed later; see the service's log",
    "status": "is runtime-dir still there, and not full? storewarden check-config shows it",
    "metrics-textfile": "correct it in the configuration, then reload: storewarden check-config",
    "metrics-listen": "correct it in the configuration, then reload: storewarden check-config",
}
"""What to do about a problem, by where it is."""

_STUCK_NEXT = (
    "sudo storewarden scan --dry-run says what keeps each of them now; once that is mended they go"
    " by themselves, or: sudo storewarden scan --yes"
)


def noticed(status: Status, now: float) -> Status:
    """The status of a running service, and what only its reader can notice among its problems."""
    silence = now - status.updated
    if silence <= SILENCE:
        return status
    text = f"it runs, but has said nothing for {age_text(silence)}; it may hang"
    return replace(status, problems={**status.problems, "service": text})


def status_lines(
    status: Status | None,
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
    if running and not status.stuck_count and not status.problems:
        yield style.mark(Mark.WELL, "all is well")


def _headline(status: Status | None, now: float, style: Style, *, running: bool) -> Iterator[str]:
    lead, mark = ("storewarden is running", Mark.WELL) if running else ("NOT RUNNING", Mark.WRONG)
    match status:
        case None:
            text = " and has said nothing yet" if running else ""
        case _ if running:
            text = f" since {moment(status.started, now)}"
        case _:
            text = f"; the last heard of it was on {moment(status.updated, now)}"
    yield from style.wrapped("", text, "  ", lead, mark)


def status_json(status: Status | None, *, running: bool) -> str:
    """The same as one JSON object; names as in the other documents."""
    said = status and {
        **{_camel(name): value for name, value in asdict(status).items()},
        "stuck": [_stuck_json(one, status) for one in status.stuck],
    }
    return json_text({"running": running, "status": said})


def _rows(status: Status, now: float) -> Iterator[tuple[str, str]]:
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


def _stuck_lines(status: Status, now: float, style: Style) -> Iterator[str]:
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


def _stuck_json(one: Stuck, status: Status) -> dict[str, object]:
    reasons = list(one.reasons)
    return {"path": _path(one, status), "kind": one.kind, "since": one.since, "reasons": reasons}


def _path(one: Stuck, status: Status) -> str:
    return f"{status.store_dir}/{one.name}"


def _counts(counts: Mapping[str, int]) -> str:
    some = [f"{count} {kind}" for kind, count in counts.items() if count]
    return ", ".join(some) or "nothing"


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
