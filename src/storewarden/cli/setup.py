# SPDX-License-Identifier: MIT
"""`storewarden setup`: the service set up on this machine, or taken back."""

import argparse
import os

from storewarden.cli.console import progress, show, style, tell
from storewarden.cli.usage import OK, Parser

_DESCRIPTION = """\
Writes what systemd or launchd needs, shows each step, and changes nothing where
everything is as it should be (docs/service.md).
examples:
  storewarden setup --dry-run
  sudo storewarden setup
  sudo storewarden setup --uninstall
"""


def define_setup(command: Parser) -> None:
    """What it takes and does."""
    command.does(_setup, _DESCRIPTION)
    add = command.add_argument
    add("-n", "--dry-run", action="store_true", help="only show what would be done")
    add("--uninstall", action="store_true", help="take away what setup wrote; not the audit log")
    add("--root", default="", metavar="DIR", help="write below DIR and run nothing, for packages")
    add("--json", action="store_true", help="show the steps as one JSON object")


def _setup(arguments: argparse.Namespace) -> int:
    from storewarden.setup.run import Order, install, uninstall  # noqa: PLC0415 - seldom wanted

    top = os.path.abspath(arguments.root) if arguments.root else ""
    order = Order(top, arguments.dry_run, arguments.json, show, style(), tell)
    with progress("looking at what is there"):
        (uninstall if arguments.uninstall else install)(order)
    return OK
