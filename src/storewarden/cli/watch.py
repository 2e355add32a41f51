# SPDX-License-Identifier: MIT
"""`storewarden watch`: the service."""

import argparse

from storewarden.cli.usage import OK, Parser
from storewarden.config import DEFAULT_CONFIG, configured

_DESCRIPTION = """\
Runs until SIGTERM or Ctrl-C. SIGHUP reads the configuration again, SIGUSR1
sweeps the whole store now. systemd or launchd start it after: sudo storewarden
setup; in a container without either it runs as root, in this one process.
examples:
  storewarden watch
  storewarden watch --config ./config.toml
"""


def define_watch(command: Parser) -> None:
    """What it takes and does."""
    command.does(_watch, _DESCRIPTION)
    command.add_argument("--config", metavar="FILE", help=f"another than {DEFAULT_CONFIG}")


def _watch(arguments: argparse.Namespace) -> int:
    from storewarden.daemon.log import service_log  # noqa: PLC0415 - only it needs these libraries
    from storewarden.daemon.loop import serve  # noqa: PLC0415 - likewise

    serve(lambda: configured(arguments.config), service_log())
    return OK
