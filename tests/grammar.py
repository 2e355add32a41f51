# SPDX-License-Identifier: MIT
"""The argparse tree taken apart: each command with its words, options and places for words."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from storewarden.cli import parser


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is typed, without the program's name."""

    words: tuple[str, ...]
    line: str
    """Its line in the list of all; empty for the program itself."""
    parser: argparse.ArgumentParser

    @property
    def name(self) -> str:
        """As it is typed; empty for the program itself."""
        return " ".join(self.words)

    @property
    def options(self) -> dict[str, argparse.Action]:
        """By every way to write it, with its dashes."""
        return {way: one for one in self.parser._actions for way in one.option_strings}

    @property
    def places(self) -> list[argparse.Action]:
        """What is said without dashes."""
        return [one for one in self.parser._actions if not one.option_strings]

    @property
    def is_a_choice(self) -> bool:
        """Whether it is of no use without a subcommand."""
        return any(one.nargs == argparse.PARSER for one in self.places)


def commands() -> list[Command]:
    """All of them, the program itself first, in the order of the help."""
    return list(_below((), "", parser()))


def _below(words: tuple[str, ...], line: str, top: argparse.ArgumentParser) -> Iterator[Command]:
    yield Command(words, line, top)
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {one.dest: one.help or "" for one in action._choices_actions}
            for name, below in action.choices.items():
                yield from _below((*words, name), lines.get(name, ""), below)
