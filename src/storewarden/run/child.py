# SPDX-License-Identifier: MIT
"""A command run to its end: it gets every signal once, and its end is told as it was."""

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from storewarden import host
from storewarden.run.channel import Channel, channel

_PASSED_ON = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)
_ENDS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_WAITED_FOR = _PASSED_ON | {signal.SIGCHLD}
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Which Python ignores, and the command must not."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit codes, as of a shell and of env(1)."""


@dataclass(frozen=True, slots=True)
class End:
    """How a command ended."""

    code: int
    """Its exit code; -N if signal N ended it."""
    told_to: bool
    """Whether a signal told it to end, so that nothing is to be done about it."""


def run_child(command: Sequence[str], feed: Callable[[bytes], None]) -> End:
    """Run it to its end; feed what it prints on stderr, which is passed on.

    `OSError` where there is no such program, or it cannot be run.
    """
    if not command[0]:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with _signals_wait() as (waiting, before), channel(feed) as one:
        actions = [(os.POSIX_SPAWN_DUP2, one.write_fd, fd) for fd in one.replaced]
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=actions,
            setsigmask=before,
            setsigdef=_PYTHONS_OWN,
        )
        return _to_its_end(pid, one, waiting)


def _to_its_end(pid: int, one: Channel, waiting: frozenset[signal.Signals]) -> End:
    told_to = False
    while True:
        number, has_it = host.next_signal(waiting)
        told_to = told_to or number in _ENDS
        if number == signal.SIGCHLD:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return End(os.waitstatus_to_exitcode(status), told_to)
            continue
        if number == signal.SIGWINCH:
            one.resize()
        # The kernel's size of its terminal may have been read before it was changed: once more.
        if not has_it or number == signal.SIGWINCH:
            os.kill(pid, number)


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
