# SPDX-License-Identifier: MIT
"""Telling systemd how the service is. The only file that knows sdnotify."""

import os
import time
from collections.abc import Callable, MutableMapping

import sdnotify

Notify = Callable[[str], None]


def notifier(environment: MutableMapping[str, str] = os.environ) -> Notify:
    """What sends one state to the service manager; nothing is sent where there is none.

    NOTIFY_SOCKET is taken out of the environment: it is not for Nix. Text is made ASCII, because
    sdnotify loses a state that is not latin-1 without a word.
    """
    if not environment.get("NOTIFY_SOCKET"):
        return lambda _: None
    manager = sdnotify.SystemdNotifier()
    del environment["NOTIFY_SOCKET"]
    return lambda state: manager.notify(state.encode("ascii", "replace").decode("ascii"))


def watchdog_interval(environment: MutableMapping[str, str] = os.environ) -> float | None:
    """Seconds between two WATCHDOG=1, half of what is allowed; None where none is wanted."""
    length, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not length.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(length) / 2e6


def reloading() -> str:
    """The state that begins a reload; `Type=notify-reload` wants the clock with it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
