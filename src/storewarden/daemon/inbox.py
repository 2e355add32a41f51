# SPDX-License-Identifier: MIT
"""Where other threads and the kernel's signals leave news for the one thread that works."""

import os
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class News:
    """What has come in since last asked."""

    names: frozenset[str] = frozenset()
    """Entries that were made, moved or removed."""
    closed: frozenset[str] = frozenset()
    """Files that were open to write and are no more: so a lock ends, with its holder if need be."""
    changed: bool = False
    """Something in the directory changed; nobody says what."""
    lost: bool = False
    """The system lost count, so that anything may have changed."""
    signals: frozenset[signal.Signals] = frozenset()


@dataclass(slots=True)
class Inbox:
    """A pipe that wakes, and what is told until it is taken."""

    reading: int
    writing: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    names: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    changed: bool = False
    lost: bool = False

    def tell(
        self,
        names: Sequence[str] = (),
        *,
        closed: Sequence[str] = (),
        changed: bool = False,
        lost: bool = False,
    ) -> None:
        """Leave news, from any thread."""
        with self.lock:
            empty = not (self.names or self.closed or self.changed or self.lost)
            self.names.update(names)
            self.closed.update(closed)
            self.changed |= changed
            self.lost |= lost
        if empty:
            with suppress(BlockingIOError):  # full of signals: it wakes all the same
                os.write(self.writing, b"\0")

    def wait(self, seconds: float) -> None:
        """Until there is news, or that many seconds have passed."""
        select.select([self.reading], [], [], max(0.0, seconds))

    def take(self) -> News:
        """All news, once."""
        told = b""
        with suppress(BlockingIOError):
            told = os.read(self.reading, 65536)
        with self.lock:
            news = News(
                frozenset(self.names),
                frozenset(self.closed),
                self.changed,
                self.lost,
                frozenset(signal.Signals(number) for number in told if number),
            )
            self.names, self.closed, self.changed, self.lost = set(), set(), False, False
        return news


@contextmanager
def inbox(*signals: signal.Signals) -> Iterator[Inbox]:
    """An inbox that those signals come to as well, instead of doing what they do by default."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield Inbox(reading, writing)
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()  # macOS has no pipe2(2)
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing
