# SPDX-License-Identifier: MIT
"""A command run as if nobody looked on, while what it prints for people is read on the way.

It gets every signal once, and its end is ours. What it prints is passed through byte for byte.
Where stderr is a terminal the command gets a terminal too, of the same size, or else Nix would show
no progress and other programs no colour. Where stdout is the same file as stderr both go one way,
so that their order is kept.
"""

import errno
import fcntl
import math
import os
import resource
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Self

from storewarden.explain.buildlog import PIECE, pass_on, pass_pieces

_ENDS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_PASSED_ON = _ENDS | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
_WAITED_FOR = _PASSED_ON | {signal.SIGCHLD}
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Which Python ignores, and the command must not."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes, as of a shell and of env(1)."""
_STDERR = 2
_LOOK_SECONDS = 0.05
"""A terminal gives what was written into it a little later."""
_MOST_SECONDS = 0.5
"""Of the time after the command's end: what it left running may keep the channel busy for ever."""
_MOST_OPEN = 65536


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended."""

    code: int
    """Its exit code; -N if signal N ended it."""
    by_request: bool
    """Whether we were sent a signal that asks it to end, so that nothing is to be done about it."""


class _Channel:
    """Where a command is to write to, and a thread that passes that on to our stderr.

    When it is left, after the command's end, all that the command wrote into it has been passed on,
    and fed. For what the command has left running a process stays with the channel, and passes on,
    until that ends.
    """

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        """Open it; nothing is read before it is entered."""
        _open_closed()
        on_terminal = os.isatty(_STDERR)
        self._read_fd, self.write_fd = os.openpty() if on_terminal else os.pipe()
        self._reading = True
        self._left_at = math.inf
        self._pump = Thread(target=self._pass_on, args=(feed,))
        self.replaced = _replaced()
        """Which of the command's descriptors go there."""
        if on_terminal:
            tty.setraw(self.write_fd)  # our own terminal makes line ends and all else of it
            self.resize()

    def __enter__(self) -> Self:
        """Begin to pass on."""
        self._pump.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Pass on what is left; the command has ended."""
        self._left_at = time.monotonic()
        self._pump.join()
        os.close(self.write_fd)
        if self._reading:
            _leave(self._read_fd)
            os.close(self._read_fd)

    def resize(self) -> None:
        """Give the command's terminal, if it has one, the size of ours."""
        with suppress(OSError):
            size = fcntl.ioctl(_STDERR, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.write_fd, termios.TIOCSWINSZ, size)

    def _pass_on(self, feed: Callable[[bytes], None]) -> None:
        """Until nothing more comes, or our reader has gone: then the command learns of it."""
        gone = True
        try:
            gone = isinstance(pass_pieces(self._read, _STDERR, feed), BrokenPipeError)
        finally:
            if gone:
                self._reading = False
                os.close(self._read_fd)

    def _read(self) -> bytes:
        while time.monotonic() < self._left_at + _MOST_SECONDS:
            if select.select([self._read_fd], [], [], _LOOK_SECONDS)[0]:
                try:
                    return os.read(self._read_fd, PIECE)
                except OSError as cause:
                    if cause.errno != errno.EIO:  # how Linux ends a terminal that nobody has open
                        raise
                    break
            if self._left_at != math.inf:
                break
        return b""


def run_child(command: Sequence[str], feed: Callable[[bytes], None]) -> End:
    """Run it to its end; feed what it prints on stderr, which is passed on.

    `OSError` where there is no such program, or it cannot be run.
    """
    if not command[0]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with _signals_wait() as (waiting, before), _Channel(feed) as channel:
        actions = [(os.POSIX_SPAWN_DUP2, channel.write_fd, fd) for fd in channel.replaced]
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=actions,
            setsigmask=before,
            setsigdef=_PYTHONS_OWN,
        )
        return _to_its_end(pid, channel, waiting)


def _to_its_end(pid: int, channel: _Channel, waiting: frozenset[signal.Signals]) -> End:
    by_request = False
    while True:
        number, has_it = _next_signal(waiting)
        by_request = by_request or number in _ENDS
        if number == signal.SIGCHLD:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return End(os.waitstatus_to_exitcode(status), by_request)
            continue
        if number == signal.SIGWINCH:
            channel.resize()
        # The kernel's size of its terminal may have been read before it was changed: once more.
        if not has_it or number == signal.SIGWINCH:
            os.kill(pid, number)


def _next_signal(waiting: frozenset[signal.Signals]) -> tuple[int, bool]:
    """The next of those signals; and whether a child of this terminal has got it too.

    That is so if the kernel sent it, as for Ctrl-C: to all processes in the foreground. Where
    nothing tells who sent it (macOS), Ctrl-C and the like are most likely the terminal's own.
    """
    # mypy takes what there is for the system it looks at.
    if tells := getattr(signal, "sigwaitinfo", None):
        found = tells(waiting)
        return found.si_signo, found.si_code > 0
    number = signal.sigwait(waiting)
    return number, number in {signal.SIGINT, signal.SIGQUIT} and _in_foreground()


def _in_foreground() -> bool:
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDONLY)
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        finally:
            os.close(terminal)
    return False


@contextmanager
def _signals_wait() -> Iterator[tuple[frozenset[signal.Signals], set[signal.Signals]]]:
    """While inside, signals wait to be asked for; gives those, and what was blocked before.

    Not one that this program was started to ignore, as by nohup: the command ignores it as well.
    """
    ignored = {n for n in _PASSED_ON if signal.getsignal(n) is signal.SIG_IGN}
    waiting = _WAITED_FOR - ignored
    # One that is of no matter by default, as SIGCHLD, might not wait without a handler.
    quiet = {signal.SIGCHLD, signal.SIGWINCH} - ignored
    handlers = {n: signal.signal(n, lambda *_: None) for n in quiet}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    try:
        yield waiting, {signal.Signals(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def end_likewise(end: End) -> int:
    """The exit code that tells of that end; where a signal was its end, it is ours as well."""
    if end.code < 0:
        number = -end.code
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left one if it is wanted
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    return end.code


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
