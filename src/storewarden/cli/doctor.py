# SPDX-License-Identifier: MIT
"""`storewarden doctor`: which settings here cause or hide debris."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

from storewarden.cli.console import progress, show, style
from storewarden.cli.options import add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser
from storewarden.config import Config, ConfigError
from storewarden.doctor import blind, diagnose, examine
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Patient, Severity, Unknown
from storewarden.explain.failures import issue_url
from storewarden.nix_queries import NixVersion
from storewarden.observe import open_nix
from storewarden.readable import PLAIN, Mark, Style, json_text, shown, typed

_DESCRIPTION = """\
Looks at Nix (its version, settings, daemon), at the store, at the build users,
and at storewarden itself, and says of each what to do. It needs no privilege,
takes no lock of Nix's, and changes nothing; root sees more. What it cannot tell
it calls unknown (docs/doctor.md).
examples:
  storewarden doctor
  sudo storewarden doctor
  storewarden doctor --json | jq '.diagnoses[] | select(.severity == "problem")'
"""
_PLURALS = {Severity.PROBLEM: "problems", Severity.NOTE: "notes"}
_MARKS = {Severity.PROBLEM: Mark.WRONG, Severity.UNKNOWN: Mark.KEPT, Severity.OK: Mark.WELL}
_TITLE = 12
"""The column in which a title begins."""
_OF_COMMANDS = " " * 18


def define_doctor(command: Parser) -> None:
    """What it takes and does."""
    command.does(_doctor, _DESCRIPTION)
    command.add_argument("--json", action="store_true", help=JSON)
    add_options(command, "config")


def _doctor(arguments: argparse.Namespace) -> int:
    config, wrong = _configured(arguments)
    with progress("looking at this machine"):
        patient = examine(config, wrong, open_nix(config))
    found = diagnose(patient)
    if arguments.json:
        show(doctor_json(patient, found))
    else:
        show(*doctor_lines(found, style()))
    if blind(patient):
        return Exit.UNREADABLE
    return Exit.NOT_ALL if any(one.severity is Severity.PROBLEM for one in found) else Exit.OK


def _configured(arguments: argparse.Namespace) -> tuple[Config, str]:
    """The service's configuration, or the defaults and what is wrong with it.

    A file that was named and is wrong is wrong use.
    """
    try:
        return config_of(arguments), ""
    except ConfigError as cause:
        if arguments.config is not None:
            raise
        return Config(), str(cause)


def doctor_lines(found: Sequence[Diagnosis], style: Style = PLAIN) -> Iterator[str]:
    """Each diagnosis with reason, remedy and issues, the worst first; then how many there are."""
    before = None
    for one in found:
        if before is not None and not before is one.severity is Severity.OK:
            yield ""
        before = one.severity
        word, mark = one.severity.value, _MARKS.get(one.severity)
        word = word.upper() if one.severity is Severity.PROBLEM else word
        title = f"{'':<{_TITLE - len(word)}}{shown(typed(one.title))}"
        yield from style.wrapped("", title, " " * _TITLE, word, mark)
        if one.why:
            yield from style.row("why", typed(one.why))
        for number, step in enumerate(one.steps):
            yield from style.row("" if number else "do", typed(step.words)) if step.words else ()
            if step.command:
                yield f"{_OF_COMMANDS}{style.mark(Mark.NAME, shown(typed(step.command)))}"
        for number, issue in enumerate(one.issues):
            yield from style.row("" if number else "see", issue_url(issue))
    yield ""
    yield _counts(found)


def doctor_json(patient: Patient, found: Sequence[Diagnosis]) -> str:
    """The document of `storewarden doctor --json`."""
    return json_text(
        {
            "storeDir": patient.config.store_dir.path,
            "stateDir": patient.config.state_dir,
            "nix": {
                "program": patient.nix.program,
                "version": _version(patient[Installation].version),
                "daemonVersion": _version(patient[Installation].daemon_version),
            },
            "diagnoses": [_diagnosis(one) for one in found],
        }
    )


def _counts(found: Sequence[Diagnosis]) -> str:
    counts = Counter(one.severity for one in found)
    return ", ".join(
        f"{counts[one]} {one if counts[one] == 1 else _PLURALS.get(one, one)}"
        for one in Severity
        if one in counts
    )


def _version(version: NixVersion | Unknown) -> str | None:
    return None if isinstance(version, Unknown) else version.name


def _diagnosis(one: Diagnosis) -> dict[str, object]:
    return {
        "name": one.name,
        "severity": one.severity.value,
        "title": typed(one.title),
        "why": typed(one.why) or None,
        "steps": [
            {"words": typed(s.words) or None, "command": typed(s.command) or None}
            for s in one.steps
        ],
        "issues": [issue_url(issue) for issue in one.issues],
    }
