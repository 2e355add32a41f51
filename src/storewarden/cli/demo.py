# SPDX-License-Identifier: MIT
"""`storewarden demo`: all of it on a throwaway store."""

import argparse

from storewarden.cli.console import show, style
from storewarden.cli.usage import Parser

_DESCRIPTION = """\
Makes a store of its own with debris in it, looks, removes what is proved dead,
and shows the record. It touches no other store, and needs neither Nix nor root.
examples:
  storewarden demo
"""


def define_demo(command: Parser) -> None:
    """What it takes and does."""
    command.does(_demo, _DESCRIPTION)


def _demo(_arguments: argparse.Namespace) -> int:
    from storewarden.demo import demo  # noqa: PLC0415 - it brings the engine along

    return demo(show, style())
