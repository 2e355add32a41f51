# SPDX-License-Identifier: MIT
"""`storewarden check-config`: is the service's configuration right."""

import argparse
import json

from storewarden.cli.console import show
from storewarden.cli.options import JSON, OK, Commands, add_command
from storewarden.config import DEFAULT_CONFIG, KEYS, Config, load_config
from storewarden.report import VERSION
from storewarden.store.paths import StoreDir

_TEXT = "is the configuration right; shows all of it"
_DESCRIPTION = """\
Reads a configuration of the service, strictly, and shows all of it, defaults
too, as it may be written in the file: storewarden-config(5).
examples:
  storewarden check-config
  storewarden check-config ./config.toml
"""


def add_check_config(commands: Commands) -> None:
    """The subcommand and its options."""
    command = add_command(commands, "check-config", _TEXT, _DESCRIPTION, _check_config)
    command.add_argument(
        "config",
        nargs="?",
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"the configuration ({DEFAULT_CONFIG})",
    )
    command.add_argument("--json", action="store_true", help=JSON)


def _check_config(arguments: argparse.Namespace) -> int:
    """Show all of it, defaults too, as it may be written in the file."""
    config = document_of(load_config(arguments.config))
    if arguments.json:
        show(json.dumps({"version": VERSION, "config": config}, indent=2))
    else:
        for key, value in config.items():
            show(f"{key} = {json.dumps(value)}")
    return OK


def document_of(config: Config) -> dict[str, object]:
    """The document that says exactly this configuration; what is None is left out."""
    values = {key: getattr(config, one.name) for key, one in KEYS.items()}
    return {key: _written(value) for key, value in values.items() if value is not None}


def _written(value: object) -> object:
    match value:
        case float(length):
            return f"{length:.0f}s"
        case frozenset(kinds):
            return sorted(map(str, kinds))
        case StoreDir(path):
            return path
    return value
