# SPDX-License-Identifier: MIT
"""Results on stdout, the rest on stderr; neither a reader that has gone nor a full disk ends it.

What takes long is told at a terminal in one line, which is rewritten, and gone before anything else
is shown. A thread writes it: who stops the terminal's output must not stop a removal with it.
"""

import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TextIO

from storewarden.protocol import Status
from storewarden.readable import (
    WIDTH,
    Mark,
    Style,
    age_text,
    is_dumb,
    shown,
    style_of,
    typed,
    without_colours,
)

_INDENT = "    "
MARKS = {
    Status.TAKEN: Mark.WELL,
    Status.REMOVED: Mark.WELL,
    Status.VANISHED: Mark.WELL,
    Status.KEPT: Mark.KEPT,
    Status.PARTIAL: Mark.WRONG,
    Status.FAILED: Mark.WRONG,
}
"""What became of an entry, in a colour."""
_LESS = "FRX"
"""As git has it: colours as they are, and what was shown stays when it ends."""
_AFTER = 1.0
_EVERY = 0.25
"""Seconds: what is done sooner needs no line; often enough to be seen to live."""
unshown: list[str] = []
"""What could not be written to stdout, a full disk there; told by the exit code."""


def style() -> Style:
    """How results look, where they go."""
    return style_of(sys.stdout)


def aside_style() -> Style:
    """The same of what is no result."""
    return style_of(sys.stderr)


def show(*lines: str) -> None:
    """Lines of the results."""
    try:
        for line in lines:
            with _line.out_of_the_way():
                print(line, flush=True)  # noqa: T201 - results go to stdout
    except BrokenPipeError:
        _silence(sys.stdout)  # the reader (`| head`) has had enough
    except OSError as cause:
        lost(f"cannot write the results: {os.strerror(cause.errno or 0).lower()}")
        _silence(sys.stdout)


def page(lines: Iterable[str]) -> None:
    """The same, by a pager where a person sits at a terminal that is too small for them."""
    told = list(lines)
    if not at_terminal() or is_dumb(os.environ) or not _is_long(told) or not (pager := _pager()):
        show(*told)
        return
    import subprocess  # noqa: PLC0415 - seldom needed

    surroundings = {"LESS": _LESS, **os.environ}
    if "SUDO_UID" in os.environ:
        surroundings["LESSSECURE"] = "1"  # who may look as root may not therefore run a shell
    # Ctrl-C is the pager's.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with subprocess.Popen(pager, stdin=subprocess.PIPE, env=surroundings) as process:
            process.communicate("".join(f"{line}\n" for line in told).encode())
    except OSError:
        show(*told)
    finally:
        signal.signal(signal.SIGINT, before)


def at_terminal() -> bool:
    """Whether a person sits there, who sees what is shown and can answer."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def _is_long(lines: Iterable[str]) -> bool:
    """Whether the terminal is too small for that, with the line in which the next is typed."""
    columns, rows = shutil.get_terminal_size()
    lengths = (len(without_colours(part)) for line in lines for part in line.split("\n"))
    return sum(max(1, -(-length // columns)) for length in lengths) >= rows


def _pager() -> list[str]:
    """The program that shows long texts, and its arguments; nothing where none is wanted.

    Who may become root by sudo for this program alone chooses none: a pager runs what it is told.
    """
    text = "less" if "SUDO_UID" in os.environ else os.environ.get("PAGER", "less")
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    there = words and words != ["cat"] and shutil.which(words[0])
    return words if there else []


def lost(reason: str) -> None:
    """Some of the results could not be shown: say why, and let the exit code tell."""
    error(reason)
    unshown.append(reason)


def aside(*lines: str) -> None:
    """Lines that are no result."""
    if sys.stderr is not None:  # print() would take stdout instead
        try:
            for line in lines:
                with _line.out_of_the_way():
                    print(line, file=sys.stderr, flush=True)  # noqa: T201 - what is not a result
        except OSError:
            _silence(sys.stderr)


def note(text: str) -> None:
    """Something that whoever is there should know."""
    aside(aside_style().folded("storewarden: ", shown(typed(text)), _INDENT))


def error(text: str) -> None:
    """Why it does not go on, or not well."""
    style = aside_style()
    aside(style.folded("storewarden: ", f" {shown(typed(text))}", _INDENT, "error:", Mark.WRONG))


def _silence(stream: TextIO) -> None:
    """Nothing more is shown there, not even at the end; what was begun is ended all the same."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def progress(text: str) -> Iterator[None]:
    """While the block runs, tell on stderr what is done and for how long, if that is a terminal."""
    tell(text)
    if sys.stderr is None or not sys.stderr.isatty() or is_dumb(os.environ):
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_line.draw_until, args=(ended,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with _line.out_of_the_way():
            pass


def tell(text: str) -> None:
    """What is done from now on, in a few words; for the block of `progress` that runs, if any."""
    _line.text = text


@dataclass(slots=True)
class _Line:
    """The line that tells what is done: one at a time, since there is one terminal."""

    text: str = ""
    drawn: bool = False
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Whose turn it is to write. A signal's handler may have something to show meanwhile."""

    @contextmanager
    def out_of_the_way(self) -> Iterator[None]:
        """While the block shows something, the line is not there."""
        with self.turn:
            if self.drawn:
                self.drawn = False
                _write(_erased())
            yield

    def draw_until(self, ended: threading.Event) -> None:
        """Draw it again and again, with the time since the beginning."""
        began = time.monotonic()
        pause = _AFTER
        while not ended.wait(pause):
            pause = _EVERY
            with self.turn:
                if ended.is_set():
                    return
                text = f"{shown(self.text)}, {age_text(time.monotonic() - began)}"
                # A line that the terminal breaks could not be erased as one.
                _write(f"{_erased()}{text[: _columns() - 1]}")
                self.drawn = True


_line = _Line()


def _erased() -> str:
    """The line made empty by blanks: who wants no colours may want no sequences at all."""
    return f"\r{' ' * (_columns() - 1)}\r"


def _columns() -> int:
    """As they are now, whatever COLUMNS says: the window may have been made smaller meanwhile."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def _write(text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal has gone
        sys.stderr.write(text)
        sys.stderr.flush()
