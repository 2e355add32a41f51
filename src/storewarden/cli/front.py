# SPDX-License-Identifier: MIT
"""The front door: `storewarden help`, and `storewarden completion`."""

import argparse

from storewarden.cli import COMMANDS, console
from storewarden.cli import parser as tree
from storewarden.cli.usage import Exit, Parser

FILES = {
    "bash": "storewarden.bash",
    "zsh": "_storewarden",
    "fish": "storewarden.fish",
}
"""By shell, the file below completions/, which `make completions` writes."""
_HELP = """\
Shows what there is, or what a command takes: the same as with --help.
examples:
  storewarden help
  storewarden help scan
  storewarden help audit log
"""
_COMPLETION = """\
Prints what that shell completes. Packages install it where the shell looks by
itself; else write it there: ~/.local/share/bash-completion/completions/,
a directory of zsh's fpath, or ~/.config/fish/completions/.
examples:
  storewarden completion bash
  storewarden completion zsh
  storewarden completion fish
"""


def define_help(command: Parser) -> None:
    """What it takes and does."""
    command.does(_help, _HELP)
    command.add_argument(
        "command", nargs="?", metavar="COMMAND", choices=[*COMMANDS], help="one of those listed"
    )
    command.add_argument("action", nargs="?", metavar="ACTION", help="of a command that has some")


def _help(arguments: argparse.Namespace) -> int:
    words = [word for word in (arguments.command, arguments.action) if word]
    tree(words[:1]).parse_args([*words, "--help"])
    return Exit.OK  # for type checkers: --help ends the program


def define_completion(command: Parser) -> None:
    """What it takes and does."""
    command.does(_completion, _COMPLETION)
    command.add_argument(
        "shell", metavar="SHELL", choices=[*FILES], help=f"one of {', '.join(FILES)}"
    )


def _completion(arguments: argparse.Namespace) -> int:
    from storewarden.setup.code import shipped  # noqa: PLC0415 - seldom wanted

    text = shipped(f"completions/{FILES[arguments.shell]}").decode()
    console.show(text.removesuffix("\n"))
    return Exit.OK
