# SPDX-License-Identifier: MIT
"""`storewarden explain -` and `explain --log FILE`: a log read, and what it tells told."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from storewarden.buildlog import BuildLog, Reading
from storewarden.passing import first_interrupt_waits, pass_on
from storewarden.report_log import reading_json, reading_lines
from storewarden.store.errors import StorewardenError
from storewarden.store.paths import StoreDir

Show = Callable[[str], None]


class LogUnreadableError(StorewardenError):
    """The log cannot be read; nothing was changed by it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log is to be explained, and how."""

    log: str | None
    """A file; None is stdin, which is passed through to stdout unless JSON goes there."""
    store_dir: StoreDir
    json: bool
    result: Show
    """Shows a line on stdout."""
    aside: Show
    """Shows a line on stderr."""
    lost: Show
    """Told why stdout does not take the log any more."""


def explain_log(wanted: Wanted) -> bool:
    """Read the log to its end and tell what is known; whether anything is.

    `LogUnreadableError` if it cannot be read; `KeyboardInterrupt`, after all has been told, if
    it was interrupted.
    """
    log = BuildLog(wanted.store_dir)
    if wanted.log is not None:
        _read_file(wanted.log, log)
        return _told(wanted, log.reading(), wanted.result)
    waits: AbstractContextManager[list[int]] = first_interrupt_waits()
    with nullcontext([]) if os.isatty(0) else waits as come:
        trouble = _passed(log, None if wanted.json or sys.stdout is None else 1)
    if not wanted.json:
        wanted.aside("")  # the log may have ended within a line
    known = _told(wanted, log.reading(), wanted.result if wanted.json else wanted.aside)
    if come:
        raise KeyboardInterrupt("interrupted")
    if trouble is not None and not isinstance(trouble, BrokenPipeError):
        wanted.lost(f"the log could not be passed on whole: {_reason(trouble)}")
    return known


def _told(wanted: Wanted, reading: Reading, show: Show) -> bool:
    if wanted.json:
        show(reading_json(reading))
    else:
        for line in reading_lines(reading):
            show(line)
    return bool(reading.seen)


def _passed(log: BuildLog, sink: int | None) -> OSError | None:
    try:
        return pass_on(0, sink, log.feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log from stdin: {_reason(cause)}") from cause


def _read_file(path: str, log: BuildLog) -> None:
    try:
        with open(path, "rb", buffering=0) as file:
            pass_on(file.fileno(), None, log.feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log {path}: {_reason(cause)}") from cause


def _reason(cause: OSError) -> str:
    return (cause.strerror or str(cause)).lower()
