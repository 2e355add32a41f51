# SPDX-License-Identifier: MIT
"""`storewarden check-config`: is the service's configuration right."""

import argparse
import json

from storewarden.cli.console import show
from storewarden.cli.usage import JSON, OK, Parser
from storewarden.config import DEFAULT_CONFIG, KEYS, Config, load_config
from storewarden.readable import json_text
from storewarden.store.paths import StoreDir

_DESCRIPTION = """\
Reads a configuration of the service, strictly, and shows all of it, defaults
too, as it may be written in the file: storewarden-config(5).
examples:
  storewarden check-config
  storewarden check-config ./config.toml
"""


def define_check_config(command: Parser) -> None:
    """What it takes and does."""
    command.does(_check_config, _DESCRIPTION)
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
        show(json_text({"config": config}))
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
