# SPDX-License-Identifier: MIT
"""`storewarden demo`: all of it on a throwaway store."""

import argparse

from storewarden.cli.console import show, style
from storewarden.cli.options import Commands, add_command

_TEXT = "show all of it on a throwaway store; needs no Nix"
_DESCRIPTION = """\
Makes a store of its own with debris in it, looks, removes what is proved dead,
and shows the record. It touches no other store, and needs neither Nix nor root.
examples:
  storewarden demo
"""


def add_demo(commands: Commands) -> None:
    """The subcommand."""
    add_command(commands, "demo", _TEXT, _DESCRIPTION, _demo)


def _demo(_arguments: argparse.Namespace) -> int:
    from storewarden.demo import demo  # noqa: PLC0415 - it brings the engine along

    return demo(show, style())
