# SPDX-License-Identifier: MIT
"""What a command prints for people, passed through byte for byte and read on the way.

Where stderr is a terminal the command gets a terminal too, of the same size, or else Nix would show
no progress and other programs no colour. Where stdout is the same file as stderr both go one way,
so that their order is kept.
"""

import errno
import fcntl
import os
import select
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread

from storewarden.explain.passing import pass_on, pass_pieces

_PIECE = 64 * 1024
_STDERR = 2
_LOOK_SECONDS = 0.05
"""A terminal gives what was written into it a little later."""
_MOST_SECONDS = 0.5
"""Of the time after the command's end: what it left running may keep the channel busy for ever."""
_MOST_OPEN = 65536


@dataclass(frozen=True, slots=True)
class Channel:
    """Where a command is to write to."""

    write_fd: int
    replaced: tuple[int, ...]
    """Which of the command's descriptors go there."""

    def resize(self) -> None:
        """Give the command's terminal, if it has one, the size of ours."""
        with suppress(OSError):
            size = fcntl.ioctl(2, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.write_fd, termios.TIOCSWINSZ, size)


@contextmanager
def channel(feed: Callable[[bytes], None]) -> Iterator[Channel]:
    """A channel to our stderr; leave it when the command has ended.

    When it is left, all that the command wrote into it has been passed on, and fed. For what the
    command has left running a process stays with the channel, and passes on, until that ends.
    """
    _open_closed()
    on_terminal = os.isatty(2)
    read_fd, write_fd = os.openpty() if on_terminal else os.pipe()
    one = Channel(write_fd, _replaced())
    if on_terminal:
        tty.setraw(write_fd)  # our own terminal makes line ends and all else of it
        one.resize()
    unread, ended = [read_fd], list[float]()
    pump = Thread(target=_pump, args=(unread, feed, ended))
    pump.start()
    try:
        yield one
    finally:
        ended.append(time.monotonic())
        pump.join()
        os.close(write_fd)
        for left in unread:
            _leave(left)
            os.close(left)


def _open_closed() -> None:
    """Of the three streams those that are closed lead nowhere: else the channel would be one.

    The command finds them as it would: closed, but for what it is to write here.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)


def _replaced() -> tuple[int, ...]:
    try:
        return (1, 2) if os.path.sameopenfile(1, 2) else (2,)
    except OSError:
        return (2,)


def _pump(unread: list[int], feed: Callable[[bytes], None], ended: Sequence[float]) -> None:
    """Pass on until nothing more comes, or our reader has gone: then the command learns of it."""
    gone = True
    try:
        trouble = pass_pieces(lambda: _read(unread[0], ended), _STDERR, feed)
        gone = isinstance(trouble, BrokenPipeError)
    finally:
        if gone:
            os.close(unread.pop())


def _read(read_fd: int, ended: Sequence[float]) -> bytes:
    while not ended or time.monotonic() < ended[0] + _MOST_SECONDS:
        if select.select([read_fd], [], [], _LOOK_SECONDS)[0]:
            return _piece(read_fd)
        if ended:
            break
    return b""


def _piece(read_fd: int) -> bytes:
    try:
        return os.read(read_fd, _PIECE)
    except OSError as cause:
        if cause.errno == errno.EIO:
            return b""  # how Linux ends a terminal that nobody has open any more
        raise


def _leave(read_fd: int) -> None:
    """Where somebody has the channel open still, leave a process that passes on what they write.

    Without a reader their next line would end them. It holds nothing but the channel and our
    stderr, as they would; signals stay blocked in it, for it ends with the last of them.
    """
    look = select.poll()
    look.register(read_fd, select.POLLIN)
    if any(what == select.POLLHUP for _, what in look.poll(0)):
        return
    with suppress(OSError):  # no more processes to be had
        if os.fork() == 0:
            try:
                os.dup2(read_fd, 0)
                os.close(1)
                os.closerange(_STDERR + 1, min(os.sysconf("SC_OPEN_MAX"), _MOST_OPEN))
                pass_on(0, _STDERR, lambda _: None)
            finally:
                os._exit(0)
