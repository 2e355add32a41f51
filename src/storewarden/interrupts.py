# SPDX-License-Identifier: MIT
"""Ctrl-C ends the program once: what ends by it is not interrupted in turn.

A person who presses it again and again would else break the message and the exit code, at any
point of the way out, the interpreter's own included.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:  # as in cli/usage.py: every start loads this
    from typing import NoReturn


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
