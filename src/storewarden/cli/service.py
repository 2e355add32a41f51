# SPDX-License-Identifier: MIT
"""The service: `storewarden setup`, `check-config` of what it is to do, and `watch`, itself."""

import argparse
import json
import os

from storewarden.cli.console import progress, show, style, tell
from storewarden.cli.usage import JSON, Exit, Parser
from storewarden.config import DEFAULT_CONFIG, KEYS, Config, configured, load_config
from storewarden.readable import json_text
from storewarden.store.paths import StoreDir

_SETUP = """\
Writes what systemd or launchd needs, shows each step, and changes nothing where
everything is as it should be (docs/service.md).
examples:
  storewarden setup --dry-run
  sudo storewarden setup
  sudo storewarden setup --prevent
  sudo storewarden setup --uninstall
"""
_CHECK_CONFIG = """\
Reads a configuration of the service, strictly, and shows all of it, defaults
too, as it may be written in the file: storewarden-config(5).
examples:
  storewarden check-config
  storewarden check-config ./config.toml
"""
_WATCH = """\
Runs until SIGTERM or Ctrl-C. SIGHUP reads the configuration again, SIGUSR1
sweeps the whole store now. systemd or launchd start it after: sudo storewarden
setup; in a container without either it runs as root, with its own helper.
examples:
  storewarden watch
  storewarden watch --config ./config.toml
"""


def define_setup(command: Parser) -> None:
    """What it takes and does."""
    command.does(_setup, _SETUP)
    add = command.add_argument
    add("-n", "--dry-run", action="store_true", help="only show what would be done")
    add("--uninstall", action="store_true", help="take away what setup wrote; not the audit log")
    add(
        "--prevent",
        action="store_true",
        help="have Nix remove debris before it builds, too; with --uninstall: only that back",
    )
    add("--root", default="", metavar="DIR", help="write below DIR and run nothing, for packages")
    add("--json", action="store_true", help="show the steps as one JSON object")


def _setup(arguments: argparse.Namespace) -> int:
    from storewarden.setup.run import Order, install, uninstall  # noqa: PLC0415 - seldom wanted

    top = os.path.abspath(arguments.root) if arguments.root else ""
    order = Order(
        top, arguments.dry_run, arguments.json, show, style(), tell, prevent=arguments.prevent
    )
    with progress("looking at what is there"):
        (uninstall if arguments.uninstall else install)(order)
    return Exit.OK


def define_check_config(command: Parser) -> None:
    """What it takes and does."""
    command.does(_check_config, _CHECK_CONFIG)
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
    return Exit.OK


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


def define_watch(command: Parser) -> None:
    """What it takes and does."""
    command.does(_watch, _WATCH)
    command.add_argument("--config", metavar="FILE", help=f"another than {DEFAULT_CONFIG}")


def _watch(arguments: argparse.Namespace) -> int:
    from storewarden.daemon.log import service_log  # noqa: PLC0415 - only it needs these libraries
    from storewarden.daemon.loop import serve  # noqa: PLC0415 - likewise

    serve(lambda: configured(arguments.config), service_log())
    return Exit.OK
