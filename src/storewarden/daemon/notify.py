# SPDX-License-Identifier: MIT
"""Telling systemd how the service is. The only file that knows sdnotify."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import sdnotify

Notify = Callable[[str], None]


@contextmanager
def notifying() -> Iterator[Notify]:
    """What sends one state to the service manager; nothing is sent where there is none.

    NOTIFY_SOCKET is taken out of the environment: it is not for Nix. Text is made ASCII, because
    sdnotify loses a state that is not latin-1 without a word.
    """
    if not os.environ.get("NOTIFY_SOCKET"):
        yield lambda _: None
        return
    manager = sdnotify.SystemdNotifier()
    del os.environ["NOTIFY_SOCKET"]
    try:
        yield lambda state: manager.notify(state.encode("ascii", "replace").decode("ascii"))
    finally:
        if manager.socket is not None:  # None where nobody listens there
            manager.socket.close()


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two WATCHDOG=1, half of what is allowed; None where none is wanted."""
    length, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not length.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(length) / 2e6


def reloading() -> str:
    """The state that begins a reload; `Type=notify-reload` wants the clock with it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
