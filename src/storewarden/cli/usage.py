# SPDX-License-Identifier: MIT
"""How the program is used: parsers, the layout of their help, exit codes, and Ctrl-C.

Every start loads this, so it loads argparse and little else.

Ctrl-C ends the program once: what ends by it is not interrupted in turn. A person who presses it
again and again would otherwise break the message and the exit code, at any point of the way out,
the interpreter's own included.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:  # as type checkers take it; typing itself would be a tenth of --version
    from typing import Any, NoReturn


class Exit(IntEnum):
    """Exit codes; what they mean stands in the help."""

    OK, FOUND, WRONG_USE, UNREADABLE, UNAVAILABLE, NOT_ALL = range(6)
    BUG, INTERRUPTED = 70, 130


EXIT_CODES = """\
exit codes:
  0    all is well (also when something alive was kept)
  1    --exit-code and something was found; or the audit log is damaged;
       or (explain) no known failure is in the log
  2    wrong use
  3    the store, its database, Nix, or the service's status cannot be read
       or asked; nothing was removed
  4    the helper or the audit log is not available, or another service runs;
       nothing (more) was removed; or (status) no service runs
  5    something could not be proved dead, removed, or shown; or (status)
       something is stuck or doubtful, or the service has a problem; or (doctor) a
       problem was found
  70   a bug in storewarden
  130  interrupted
"""
JSON = "one JSON object on stdout (docs/json.md)"
"""What `--json` gives, as its line of help says it."""

_COLUMNS = 80
"""Where there is no terminal."""
Run = Callable[[argparse.Namespace], int]
"""What a command does with its arguments; gives the exit code."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and each command on one line with its text."""

    def __init__(self, prog: str, **others: "Any") -> None:  # noqa: ANN401 - argparse's
        """As argparse, which makes one for each option and would load `shutil` for the width."""
        super().__init__(prog, **{"width": _columns() - 2, **others})

    def add_argument(self, action: argparse.Action) -> None:
        """Allow for the indent of commands, which argparse forgets."""
        super().add_argument(action)
        if action.nargs == argparse.PARSER:
            self._action_max_length += self._indent_increment


def _columns() -> int:
    """As `shutil.get_terminal_size`."""
    with suppress(ValueError):
        if (columns := int(os.environ.get("COLUMNS", ""))) > 0:
            return columns
    if sys.__stdout__ is not None:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(sys.__stdout__.fileno()).columns or _COLUMNS
    return _COLUMNS


class Parser(argparse.ArgumentParser):
    """One that prints an error in one line, and where to read on."""

    def does(self, run: Run, description: str) -> None:
        """Have the command run that, and describe it with that text, which ends in examples."""
        self.description, _, examples = description.partition("\nexamples:\n")
        self.epilog = f"examples:\n{examples}\n{EXIT_CODES}"
        self.set_defaults(run=run)

    def ask(self, question: str) -> None:
        """Answer with that question, and exit code 2, where no command is given."""
        self.set_defaults(run=lambda _: self.error(question))

    def error(self, message: str) -> "NoReturn":
        """Exit with 2."""
        from storewarden.cli.console import error  # noqa: PLC0415 - a start without error needs none

        error(f"{message} (see: {self.prog} --help)")
        self.exit(Exit.WRONG_USE)


def add_command(commands: "argparse._SubParsersAction[Parser]", name: str, line: str) -> Parser:
    """A command that takes and does nothing yet; `line` stands beside it in the list of all."""
    return commands.add_parser(name, help=line, formatter_class=Help, allow_abbrev=False)


def interrupt(reason: str = "") -> "NoReturn":
    """Raise `KeyboardInterrupt`; from now on Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt(reason)


def end_once_interrupted() -> None:
    """Have Ctrl-C, as far as this program takes it at all, call `interrupt`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: interrupt())


@contextmanager
def first_interrupt_waits(
    reason: str, noticed: Callable[[], None] = lambda: None
) -> Iterator[list[int]]:
    """While inside, the first Ctrl-C only calls `noticed`; a second one interrupts, for `reason`.

    The list is not empty when one has come.
    """
    come: list[int] = []

    def note(number: int, _frame: object) -> None:
        if come:
            interrupt(reason)
        come.append(number)
        noticed()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield come
    finally:
        if signal.getsignal(signal.SIGINT) is note:  # else it is interrupted already
            signal.signal(signal.SIGINT, before)
