# SPDX-License-Identifier: MIT
"""`storewarden explain -` and `explain --log FILE`: a log read, and what it tells told."""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from storewarden.cli.console import aside, aside_style, lost, show, style
from storewarden.cli.progress import progress, tell
from storewarden.copyable import ThisStore
from storewarden.errors import StorewardenError
from storewarden.explain.buildlog import BuildLog, Reading
from storewarden.explain.passing import pass_on
from storewarden.interrupts import first_interrupt_waits, interrupt
from storewarden.readable import size_text
from storewarden.report.log import reading_json, reading_lines
from storewarden.store.paths import StoreDir
from storewarden.style import Style


class LogUnreadableError(StorewardenError):
    """The log cannot be read; nothing was changed by it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log is to be explained, and how."""

    log: str | None
    """A file; None is stdin, which is passed through to stdout unless JSON goes there."""
    store_dir: StoreDir
    state_dir: str
    json: bool


def explain_log(wanted: Wanted) -> bool:
    """Read the log to its end and tell what is known; whether anything is.

    `LogUnreadableError` if it cannot be read; `KeyboardInterrupt`, after all has been told, if
    it was interrupted.
    """
    log = BuildLog(wanted.store_dir)
    if wanted.log is not None:
        _read_file(wanted.log, log)
        return _told(wanted, log.reading(), show, style())
    # Ctrl-C goes to the build too, which has something to say about it.
    waits: AbstractContextManager[list[int]] = first_interrupt_waits(
        "interrupted; the log was not read to its end"
    )
    with nullcontext([]) if os.isatty(0) else waits as come:
        trouble = _passed(log, None if wanted.json or sys.stdout is None else 1)
    if not wanted.json:
        aside("")  # the log may have ended within a line
    known = _told(wanted, log.reading(), show if wanted.json else aside, aside_style())
    if come:
        interrupt("interrupted")
    if trouble is not None and not isinstance(trouble, BrokenPipeError):
        lost(f"the log could not be passed on whole: {_reason(trouble)}")
    return known


def _told(wanted: Wanted, reading: Reading, say: Callable[[str], None], look: Style) -> bool:
    this = ThisStore(wanted.store_dir.path, wanted.state_dir)
    if wanted.json:
        say(reading_json(reading, this))
    else:
        for line in reading_lines(reading, look, this):
            say(line)
    return bool(reading.seen)


def _passed(log: BuildLog, sink: int | None) -> OSError | None:
    try:
        return pass_on(0, sink, log.feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log from stdin: {_reason(cause)}") from cause


def _read_file(path: str, log: BuildLog) -> None:
    try:
        with open(path, "rb", buffering=0) as file, progress(f"reading {path}"):
            size, read = os.fstat(file.fileno()).st_size, 0

            def feed(piece: bytes) -> None:
                nonlocal read
                read += len(piece)
                tell(f"reading {path}: {size_text(read)} of {size_text(max(size, read))}")
                log.feed(piece)

            pass_on(file.fileno(), None, feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log {path}: {_reason(cause)}") from cause


def _reason(cause: OSError) -> str:
    return (cause.strerror or str(cause)).lower()
