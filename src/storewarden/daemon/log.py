# SPDX-License-Identifier: MIT
"""What the service tells as it works: a log on stderr for people, its state for systemd.

The only file that knows structlog and sdnotify. In the log, names are fields, never part of the
message, and safe for a terminal: builders chose them.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import sdnotify
import structlog

from storewarden.readable import Mark, has_colours, shown

Log = structlog.typing.FilteringBoundLogger
Notify = Callable[[str], None]
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def service_log(stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> Log:
    """A logger for that stream: colours on a terminal, priorities for journald, else JSON."""
    common: list[structlog.typing.Processor] = [structlog.processors.add_log_level, _safe]
    if stream.isatty():
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        ends: list[structlog.typing.Processor] = [stamp, _for_terminal(environment)]
    elif environment.get("JOURNAL_STREAM"):
        ends = [_for_journal]
    else:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        ends = [stamp, _in_order, structlog.processors.JSONRenderer()]
    logger: Log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[*common, *ends],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return logger


def _for_terminal(environment: Mapping[str, str]) -> structlog.dev.ConsoleRenderer:
    """Levels in the colours that their meaning has everywhere, where colours are wanted."""
    colours = has_colours(terminal=True, environment=environment)
    levels = {"info": Mark.WELL, "warning": Mark.KEPT, "error": Mark.WRONG, "critical": Mark.WRONG}
    styles = {level: f"\x1b[{mark}m" for level, mark in levels.items()} if colours else None
    return structlog.dev.ConsoleRenderer(colors=colours, level_styles=styles, pad_event_to=0)


def _safe(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    return {key: shown(v) if isinstance(v, str) else v for key, v in event.items()}


def _in_order(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """When, how bad and what first: people read it too."""
    return {key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event)


def _for_journal(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """`<6>removed path=/nix/store/... files=3`: journald takes the number for the priority."""
    priority = _PRIORITY[event.pop("level")]
    words = [f"{key}={_quoted(value)}" for key, value in event.items() if key != "event"]
    return " ".join([f"<{priority}>{event['event']}", *words])


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text


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
