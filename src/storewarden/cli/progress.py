# SPDX-License-Identifier: MIT
"""What takes long, in one line at a terminal that is rewritten, and gone before anything else.

A thread writes it: who stops the terminal's output must not stop a removal with it.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from storewarden.readable import age_text, shown
from storewarden.style import WIDTH, is_dumb

_AFTER = 1.0
_EVERY = 0.25
"""Seconds: what is done sooner needs no line; often enough to be seen to live."""


@dataclass(slots=True)
class _Line:
    """The line: one at a time, since there is one terminal."""

    text: str = ""
    drawn: bool = False
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Whose turn it is to write. A signal's handler may have something to show meanwhile."""


_line = _Line()


def tell(text: str) -> None:
    """What is done from now on, in a few words; for the block of `progress` that runs, if any."""
    _line.text = text


@contextmanager
def progress(text: str) -> Iterator[None]:
    """While the block runs, tell on stderr what is done and for how long, if that is a terminal."""
    tell(text)
    if not _can_be_rewritten():
        yield
        return
    ended = threading.Event()
    threading.Thread(target=_draw_until, args=(ended,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with out_of_the_way():
            pass


@contextmanager
def out_of_the_way() -> Iterator[None]:
    """While the block shows something, the line is not there."""
    with _line.turn:
        if _line.drawn:
            _line.drawn = False
            _write(_erased())
        yield


def _can_be_rewritten() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and not is_dumb(os.environ)


def _draw_until(ended: threading.Event) -> None:
    began = time.monotonic()
    pause = _AFTER
    while not ended.wait(pause):
        pause = _EVERY
        with _line.turn:
            if ended.is_set():
                return
            text = f"{shown(_line.text)}, {age_text(time.monotonic() - began)}"
            # A line that the terminal breaks could not be erased as one.
            _write(f"{_erased()}{text[: _columns() - 1]}")
            _line.drawn = True


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
