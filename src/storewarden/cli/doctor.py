# SPDX-License-Identifier: MIT
"""`storewarden doctor`: what of this machine breeds debris, or hides it."""

import argparse

from storewarden.cli.console import progress, show, style
from storewarden.cli.options import add_config, config_of
from storewarden.cli.usage import JSON, NOT_ALL, OK, UNREADABLE, Parser
from storewarden.config import Config, ConfigError
from storewarden.opening import open_nix

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


def define_doctor(command: Parser) -> None:
    """What it takes and does."""
    command.does(_doctor, _DESCRIPTION)
    command.add_argument("--json", action="store_true", help=JSON)
    add_config(command)


def _doctor(arguments: argparse.Namespace) -> int:
    from storewarden.doctor.diagnosing import blind, diagnose  # noqa: PLC0415 - seldom wanted
    from storewarden.doctor.diagnosis import Severity  # noqa: PLC0415
    from storewarden.doctor.gathering import gather  # noqa: PLC0415
    from storewarden.report.doctor import doctor_json, doctor_lines  # noqa: PLC0415

    config, wrong = _configured(arguments)
    with progress("looking at this machine"):
        facts = gather(config, wrong, open_nix(config))
    found = diagnose(facts)
    if arguments.json:
        show(doctor_json(facts, found))
    else:
        for line in doctor_lines(found, style()):
            show(line)
    if blind(facts):
        return UNREADABLE
    return NOT_ALL if any(one.severity is Severity.PROBLEM for one in found) else OK


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
