# SPDX-License-Identifier: MIT
"""`make completions`: what bash, zsh and fish complete, written from the argparse tree by shtab."""

import argparse
import os

import shtab

from storewarden.cli import parser
from storewarden.cli.front import FILES

__all__ = ["FILES", "completions"]
_COMPLETED = {
    "ACTION": None,
    "AGE": None,
    "CMD": None,  # of it, and of what it takes, other completions know
    "COMMAND": None,  # it has choices
    "DIR": shtab.DIRECTORY,
    "FILE": shtab.FILE,
    "GROUP": None,
    "KIND": None,  # it has choices
    "N": None,
    "PATH": shtab.FILE,
    "SHELL": None,  # it has choices
    "TIME": None,
}
"""What may stand where the help says that; each word that it says must be here."""


def completions(shell: str) -> str:
    """The script for that shell; `KeyError` where the help says a word that is not known here."""
    tree = parser()
    _complete(tree)
    written: str = shtab.complete(tree, shell)
    return "".join(f"{line.rstrip()}\n" for line in written.splitlines())


def _complete(command: argparse.ArgumentParser) -> None:
    """Say of each option what completes it, and of each subcommand its line in the list of all."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {one.dest: one.help for one in action._choices_actions}
            for name, below in action.choices.items():
                below.description = lines[name]
                _complete(below)
        elif action.nargs != 0:
            completed = _COMPLETED[str(action.metavar)]
            if completed is not None:
                action.complete = completed  # type: ignore[attr-defined]  # shtab's own


if __name__ == "__main__":
    for shell, name in FILES.items():
        place = os.path.join(os.path.dirname(__file__), name)
        with open(place, "w", encoding="utf-8") as file:
            file.write(completions(shell))
