# SPDX-License-Identifier: MIT
"""The service's own log on stderr. The only file that knows structlog.

Names are fields, never part of the message, and safe for a terminal: builders chose them.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from storewarden.readable import Mark, has_colours, shown

Log = structlog.typing.FilteringBoundLogger
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def open_log(stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ) -> Log:
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
