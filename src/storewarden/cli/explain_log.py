# SPDX-License-Identifier: MIT
"""`storewarden explain -` and `explain --log FILE`: a log read, and what it tells.

For people and as JSON (docs/json.md). Builders choose what is in a log.
"""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

from storewarden.cli.console import aside, aside_style, lost, progress, show, style, tell
from storewarden.cli.usage import first_interrupt_waits, interrupt
from storewarden.config import Config
from storewarden.errors import StorewardenError
from storewarden.explain.buildlog import BuildLog, Reading, Seen, pass_on
from storewarden.explain.failures import Step, issue_url
from storewarden.readable import (
    PLAIN,
    USUAL,
    Mark,
    Style,
    ThisStore,
    count_text,
    json_text,
    shown,
    size_text,
)

_INDENT = "    "
_PATHS = "PATHS"


class LogUnreadableError(StorewardenError):
    """The log cannot be read; nothing was changed by it."""


def explain_log(config: Config, path: str | None, *, as_json: bool) -> bool:
    """Read the log to its end and tell what is known; whether anything is.

    It is in the file `path`; None is stdin, which is passed through to stdout unless JSON goes
    there. `LogUnreadableError` if it cannot be read; `KeyboardInterrupt`, after all has been told,
    if it was interrupted.
    """
    log = BuildLog(config.store_dir)
    this = ThisStore(config.store_dir.path, config.state_dir)

    def tell_all(say: Callable[[str], None], look: Style) -> bool:
        reading = log.reading()
        lines = [reading_json(reading, this)] if as_json else reading_lines(reading, look, this)
        for line in lines:
            say(line)
        return bool(reading.seen)

    if path is not None:
        _read_file(path, log)
        return tell_all(show, style())
    # Ctrl-C goes to the build too, which has something to say about it.
    waits: AbstractContextManager[list[int]] = first_interrupt_waits(
        "interrupted; the log was not read to its end"
    )
    with nullcontext([]) if os.isatty(0) else waits as come:
        trouble = _passed(log, None if as_json or sys.stdout is None else 1)
    if not as_json:
        aside("")  # the log may have ended within a line
    recognized = tell_all(show if as_json else aside, aside_style())
    if come:
        interrupt("interrupted")
    if trouble is not None and not isinstance(trouble, BrokenPipeError):
        lost(f"the log could not be passed on whole: {_reason(trouble)}")
    return recognized


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


def reading_lines(reading: Reading, style: Style = PLAIN, this: ThisStore = USUAL) -> Iterator[str]:
    """The known failures, causes and cures in this store, for a person; or that none is known."""
    for seen in reading.seen:
        yield from _failure_lines(seen, style, this)
        yield ""
    lines = count_text(reading.lines, "line")
    if reading.seen:
        yield f"{count_text(len(reading.seen), 'known failure')} in {lines}"
        return
    yield f"no known failure in {lines}: nothing can be said about this log"
    if reading.failed:
        yield "these were not built; their whole logs may tell why:"
    for path in reading.failed:
        command = this.command(f"nix log {shlex.quote(path)}")
        yield f"{_INDENT}{style.mark(Mark.NAME, command)}"


def _failure_lines(seen: Seen, style: Style, this: ThisStore) -> Iterator[str]:
    failure = seen.failure
    yield style.mark(Mark.WRONG, failure.title)
    often = f" (and {seen.times - 1} more)" if seen.times > 1 else ""
    yield f"{_INDENT}line {seen.number}{often}: {shown(seen.line.strip())}"
    for path in seen.paths:
        yield f"{_INDENT}about: {style.mark(Mark.NAME, shown(path))}"
    yield from style.wrapped(_INDENT, f"why: {failure.cause}", _INDENT * 2)
    if failure.tell:
        yield from style.wrapped(_INDENT, f"how to tell: {failure.tell}", _INDENT * 2)
    yield f"{_INDENT}what to do:"
    for step in failure.steps:
        yield from style.wrapped(_INDENT * 2, step.words, _INDENT * 2)
        if step.command:
            yield f"{_INDENT * 3}{style.mark(Mark.NAME, _command(step, seen.paths, this))}"
    yield from style.wrapped(_INDENT, f"versions: {failure.versions}", _INDENT * 2)
    yield from (f"{_INDENT}see: {issue_url(issue)}" for issue in failure.issues)


def _command(step: Step, paths: Sequence[str], this: ThisStore) -> str:
    return this.template(step.command).replace(_PATHS, " ".join(map(shlex.quote, paths)) or "PATH")


def reading_json(reading: Reading, this: ThisStore = USUAL) -> str:
    """The same as one JSON object."""
    document = {
        "lines": reading.lines,
        "failures": [_failure_json(seen, this) for seen in reading.seen],
        "paths": list(reading.failed),
    }
    return json_text(document)


def _failure_json(seen: Seen, this: ThisStore) -> dict[str, object]:
    failure = seen.failure
    return {
        "name": failure.name,
        "title": failure.title,
        "cause": failure.cause,
        "tell": failure.tell or None,
        "steps": [
            {"words": step.words, "command": _command(step, seen.paths, this) or None}
            for step in failure.steps
        ],
        "versions": failure.versions,
        "issues": [issue_url(issue) for issue in failure.issues],
        "line": seen.line,
        "lineNumber": seen.number,
        "times": seen.times,
        "paths": list(seen.paths),
    }
