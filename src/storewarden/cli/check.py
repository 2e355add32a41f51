# SPDX-License-Identifier: MIT
"""`storewarden check`: does anything need attention? One line and an exit code, for programs."""

import argparse
from dataclasses import dataclass
from enum import StrEnum

from storewarden.cli import console
from storewarden.cli.findings import Groups, grouped, much_text, summary_json
from storewarden.cli.options import STORE, add_options, config_of
from storewarden.cli.status import noticed
from storewarden.cli.usage import JSON, Exit, Parser
from storewarden.config import Config, Mode
from storewarden.daemon.starting import Starting, how_started
from storewarden.daemon.status import ServiceStatus, is_held, read_status
from storewarden.errors import StorewardenError
from storewarden.observe import open_store
from storewarden.readable import Mark, json_text, kinds_text, shown
from storewarden.scan import Finding, sweep

_DESCRIPTION = """\
For CI and monitoring: sweeps the store, asks the service how it is, and says in
one line and by its exit code what needs attention: debris that can go, what is
stuck, a service that should run and does not. What is alive needs none.
examples:
  storewarden check
  storewarden check --nagios
  storewarden check --json | jq -r .state
"""
_LEFT_TO_THE_SERVICE = 60.0
"""Seconds: what a service removes by itself needs nobody (it tries again within 30 s)."""


class State(StrEnum):
    """What needs attention most."""

    OK = "ok"
    DEBRIS = "debris"
    DOUBTFUL = "doubtful"
    DOWN = "service-down"
    STUCK = "stuck"
    UNKNOWN = "unknown"


_CODES = {
    State.OK: Exit.OK,
    State.DEBRIS: Exit.FOUND,
    State.DOUBTFUL: Exit.NOT_ALL,
    State.DOWN: Exit.UNAVAILABLE,
    State.STUCK: Exit.NOT_ALL,
    State.UNKNOWN: Exit.UNREADABLE,
}
_LEVELS = {
    State.OK: ("OK", 0),
    State.DEBRIS: ("WARNING", 1),
    State.DOUBTFUL: ("WARNING", 1),
    State.DOWN: ("CRITICAL", 2),
    State.STUCK: ("CRITICAL", 2),
    State.UNKNOWN: ("UNKNOWN", 3),
}
"""What Nagios and its like call it, and the exit code that they want."""
_MARKS = {"OK": Mark.WELL, "WARNING": Mark.KEPT, "CRITICAL": Mark.WRONG, "UNKNOWN": Mark.KEPT}


@dataclass(frozen=True, slots=True)
class Service:
    """The service, as far as it concerns who watches the machine."""

    expected: bool
    """Whether it is to run here."""
    running: bool
    status: ServiceStatus | None

    @property
    def removes(self) -> bool:
        """Whether it is at work and removes what is proved dead."""
        return self.running and self.status is not None and self.status.mode == Mode.REPAIR

    @property
    def stuck(self) -> int:
        """How much should go and could not."""
        return self.status.stuck_count if self.running and self.status else 0

    @property
    def doubtful(self) -> int:
        """How many valid paths may hold stale files."""
        return self.status.doubtful_count if self.running and self.status else 0

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, in plain words, by where."""
        return self.status.problems if self.running and self.status else {}


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and what is to be said of it."""

    state: State
    text: str
    groups: Groups | None = None
    service: Service | None = None
    notes: tuple[str, ...] = ()
    """What could not be seen, in plain words."""


def define_check(command: Parser) -> None:
    """What it takes and does."""
    command.does(_check, _DESCRIPTION)
    add = command.add_argument
    add("--nagios", action="store_true", help="as a plugin: its words, exit codes, and numbers")
    add("--json", action="store_true", help=JSON)
    add_options(command, *STORE)


def _check(arguments: argparse.Namespace) -> int:
    config: Config | None = None
    try:
        config = config_of(arguments)
        found = checked(config)
    except StorewardenError as cause:
        if not arguments.nagios:
            raise
        found = Check(State.UNKNOWN, str(cause))
    level, code = _LEVELS[found.state]
    if arguments.json and config is not None:
        console.show(check_json(config, found))
    elif arguments.nagios:
        numbers = f" | {perfdata(found)}" if found.groups else ""
        console.show(f"STOREWARDEN {level} - {shown(found.text).replace('|', '/')}{numbers}")
    else:
        look = console.style()
        console.show(look.folded("", f": {shown(found.text)}", "    ", level, _MARKS[level]))
        for text in found.notes:
            console.note(text)
    return code if arguments.nagios else _CODES[found.state]


def checked(config: Config) -> Check:
    """Look at store and service. `StorewardenError` where either cannot be told."""
    service = _service(config)
    store = open_store(config)
    with console.progress("looking for what is not registered"):
        swept = sweep(store)
    groups = grouped(swept.findings, config.kinds)
    if swept.nix_silent:
        text = f"Nix could not be asked: {swept.nix_silent}"
        return Check(State.UNKNOWN, text, groups, service, swept.notes)
    debris = [finding for finding in groups.going if not _left(finding, service)]
    states, texts = [State.OK], []
    if service.stuck or service.problems:
        states.append(State.STUCK)
        if service.stuck:
            texts.append(f"{service.stuck} stuck")
        texts += [f"problem ({where}): {text}" for where, text in service.problems.items()]
    if service.expected and not service.running:
        states.append(State.DOWN)
        texts.append("the service does not run")
    if service.doubtful:
        states.append(State.DOUBTFUL)
        texts.append(f"{service.doubtful} valid, but doubtful: see storewarden status")
    if debris:
        states.append(State.DEBRIS)
        much = much_text(debris)
        text = (
            f"{_kinds(debris)} can go"
            if not groups.candidate.findings
            else (f"{_kinds(debris)} look dead; root must confirm")
        )
        texts.append(f"{text} ({much})" if much else text)
    worst = max(states, key=[*State].index)
    said = texts or [f"nothing needs attention in {config.store_dir.path}"]
    said += [
        f"{len(group.findings)} {group.title}" for group in groups if group.mark is not Mark.WELL
    ]
    said += ["not all can be seen here"] if swept.notes else []
    return Check(worst, "; ".join(said), groups, service, swept.notes)


def _service(config: Config) -> Service:
    status = read_status(config.runtime_dir)
    running = is_held(config.runtime_dir)
    expected = running or is_missed(status, how_started())
    if running and status is not None:
        from time import time  # noqa: PLC0415 - the one look at the clock

        status = noticed(status, time())
    return Service(expected, running, status)


def is_missed(status: ServiceStatus | None, starting: Starting) -> bool:
    """Whether one that does not run should: it is set up, or was run by hand and not told to end.

    `status` is what it last said.
    """
    return bool(starting.unit) or (status is not None and not status.ended)


def _left(finding: Finding, service: Service) -> bool:
    """Whether the service is at it."""
    return service.removes and finding.age is not None and finding.age < _LEFT_TO_THE_SERVICE


def _kinds(findings: list[Finding]) -> str:
    kinds = sorted({finding.kind.value for finding in findings}, reverse=True)
    return kinds_text({kind: sum(f.kind.value == kind for f in findings) for kind in kinds})


def perfdata(found: Check) -> str:
    """The numbers, as Nagios' guidelines for plugins have them: value, warn, critical, least."""
    groups, service = found.groups, found.service
    if groups is None or service is None:
        return ""
    summary = summary_json(groups)
    going = len(groups.going)
    return (
        f"debris={going};0;;0 debris_bytes={summary['bytes']}B;;;0"
        f" kept={summary['kept']};;;0 reported={summary['reported']};;;0"
        f" stuck={service.stuck};;0;0 doubtful={service.doubtful};0;;0"
        f" service={int(service.running)};;;0;1"
    )


def check_json(config: Config, found: Check) -> str:
    """The same as one JSON object."""
    service = found.service
    return json_text(
        {
            "storeDir": config.store_dir.path,
            "stateDir": config.state_dir,
            "state": found.state.value,
            "text": found.text,
            "notes": list(found.notes),
            "summary": found.groups and summary_json(found.groups),
            "service": service
            and {
                "expected": service.expected,
                "running": service.running,
                "mode": service.status and service.status.mode,
                "stuckCount": service.stuck,
                "doubtfulCount": service.doubtful,
                "problems": service.problems,
            },
        }
    )
