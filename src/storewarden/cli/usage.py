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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum

TYPE_CHECKING = False
if TYPE_CHECKING:  # as type checkers take it; typing itself would be a tenth of --version
    from typing import Any, NoReturn


class Exit(IntEnum):
    """Exit codes; what they mean stands in the help."""

    OK, FOUND, WRONG_USE, UNREADABLE, UNAVAILABLE, NOT_ALL = range(6)
    BUG, INTERRUPTED = 70, 130


_SHOWING = "scan check explain locks doctor audit status check-config setup demo"
_EXITS = (
    (0, "", "all is well (also when something alive was kept)"),
    (1, "scan", "--exit-code, and something was found"),
    (1, "check", "debris can go"),
    (1, "explain", "no known failure is in the log"),
    (1, "audit", "the log is damaged"),
    (1, "demo", "something was not as it should be"),
    (2, "", "wrong use, or a wrong configuration"),
    (3, "scan check explain locks doctor", "store, database or Nix cannot be read or asked"),
    (3, "status", "what the service says of itself cannot be read"),
    (4, "scan", "the helper or the audit log is not available; nothing (more) was removed"),
    (4, "check status", "no service runs"),
    (4, "watch", "another service runs"),
    (4, "audit", "the log cannot be read"),
    (5, "scan", "something could not be proved dead, or not removed"),
    (5, "check status", "something is stuck or doubtful, or the service has a problem"),
    (5, "doctor", "a problem was found"),
    (5, _SHOWING, "not all of the results could be shown"),
    (70, "", "a bug in storewarden"),
    (126, "run", "CMD cannot be run"),
    (127, "run", "there is no CMD"),
    (130, "", "interrupted"),
)
"""Each code with the commands that it is of, all where none is named, and what it means."""
JSON = "one JSON object on stdout (docs/json.md)"
"""What `--json` gives, as its line of help says it."""

_COLUMNS = 80
"""Where there is no terminal."""
_BY_SUDO = "  sudo "
"""How an example begins that is for root."""
_HANG = 7
"""Columns before the meaning of an exit code."""
Run = Callable[[argparse.Namespace], int]
"""What a command does with its arguments; gives the exit code."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and each command on one line with its text."""

    def __init__(self, prog: str, **others: "Any") -> None:  # noqa: ANN401 - argparse's
        """As argparse, which makes one for each option and would load `shutil` for the width."""
        super().__init__(prog, **{"width": _columns() - 2, **others})

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: "Iterable[argparse._MutuallyExclusiveGroup]",
        prefix: str | None,
    ) -> str:
        """As argparse; where there are few columns without the options, which are listed below.

        Without a prefix it becomes the name of a command, which is the same at every width.
        """
        if prefix == "" or self._width >= _COLUMNS - 2:
            return super()._format_usage(usage, actions, groups, prefix)
        places = [one for one in actions if not one.option_strings]
        words = [self._format_args(one, str(one.metavar)) for one in places]
        return super()._format_usage(" ".join(["%(prog)s [OPTION ...]", *words]), [], [], prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """As it is written, for 80 columns; anew where there are fewer, and no word is cut."""
        if width >= _COLUMNS - 2:
            return super()._fill_text(text, width, indent)
        return "\n".join(_anew(text, width))

    def _split_lines(self, text: str, width: int) -> list[str]:
        """As argparse, but that no path is cut."""
        return list(folded(text, width))

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


def folded(text: str, width: int, first: str = "", then: str = "") -> Iterator[str]:
    """Words on lines of that width, as `textwrap` has them, which a start can do without."""
    indent, line = first, ""
    for word in text.split():
        if line and len(indent) + len(line) + len(word) >= width:
            yield indent + line
            indent, line = then, ""
        line += f" {word}" if line else word
    yield indent + line


def _anew(text: str, width: int) -> Iterator[str]:
    """The lines of a text: what belongs together is put together, and folded."""
    item: list[str] = []
    for line in [*text.split("\n"), ""]:
        indent = len(line) - len(line.lstrip())
        goes_on = line.strip() and item and (indent >= _HANG or (not indent and item[0][0] != " "))
        if item and (not goes_on or item[-1].endswith(":")):
            own = item[0][: len(item[0]) - len(item[0].lstrip())]
            hang = " " * (_HANG if item[0].lstrip()[:1].isdigit() else 3 * len(own))
            yield from folded(" ".join(item), width, own, hang)
            item = []
        if line.strip():
            item.append(line)
        else:
            yield ""


def exit_codes(command: str = "") -> str:
    """What the codes mean that a command may end with; of all commands where none is named."""
    lines = ["exit codes:"]
    for code in dict.fromkeys(row[0] for row in _EXITS):
        texts = [
            text if command or names in {"", _SHOWING} else f"({', '.join(names.split())}) {text}"
            for number, names, text in _EXITS
            if number == code and (not (command and names) or command in names.split())
        ]
        if texts:
            head = f"  {code:<{_HANG - 2}}"
            lines += folded("; ".join(texts), _COLUMNS - 1, head, " " * _HANG)
    return "\n".join([*lines, ""])


class Parser(argparse.ArgumentParser):
    """One that prints an error in one line, with what may have been meant, and where to read on."""

    def does(self, run: Run, description: str) -> None:
        """Have the command run that, and describe it with that text, which ends in examples."""
        self.description, _, examples = description.partition("\nexamples:\n")
        name = self.prog.split()[1]
        self.epilog = f"examples:\n{examples}\n{exit_codes(name)}"
        self.set_defaults(run=run)

    def format_help(self) -> str:
        """As argparse; an example by sudo has the place of the program where sudo needs it."""
        if self.epilog and _BY_SUDO in self.epilog:
            from storewarden.readable import typed  # noqa: PLC0415 - a start without help needs none

            lines = self.epilog.split("\n")
            lines = [typed(line) if line.startswith(_BY_SUDO) else line for line in lines]
            self.epilog = "\n".join(lines)
        return super().format_help()

    def shows_help(self) -> None:
        """Answer with its help, and exit code 2, where no command is given."""

        def run(_: argparse.Namespace) -> int:
            self.print_help()
            return Exit.WRONG_USE

        self.set_defaults(run=run)

    def parse_known_args(  # type: ignore[override]  # argparse's takes and gives more types
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; but what nobody knows is an error here, where it is known what is taken."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [way for action in self._actions for way in action.option_strings]
            meant = _meant(rest[0], options) if rest[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        return known, []

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Say what may have been meant in place of what is no choice."""
        if action.choices is not None and value not in action.choices:
            meant = _meant(str(value), list(action.choices))
            raise argparse.ArgumentError(action, f"there is no {value!r}{meant}")

    def error(self, message: str) -> "NoReturn":
        """Exit with 2."""
        from storewarden.cli.console import error  # noqa: PLC0415 - a start without error needs none

        error(f"{message} (see: {self.prog} --help)")
        self.exit(Exit.WRONG_USE)


def _meant(word: str, words: list[str]) -> str:
    from storewarden.config import meant  # noqa: PLC0415 - for who has mistyped something

    return f"; {meant(word, words)}"


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
def ended_by_ctrl_c() -> Iterator[None]:
    """While inside, Ctrl-C is how it is meant to end: nothing is said of what was not done."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(Exit.INTERRUPTED) from None


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
