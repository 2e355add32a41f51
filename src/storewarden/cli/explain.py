# SPDX-License-Identifier: MIT
"""`storewarden explain`: a log read, and what it tells; of a path see explain_paths.py.

For people and as JSON (docs/json.md). Builders choose what is in a log.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from storewarden.cli import console
from storewarden.cli.options import STORE, add_options, config_of
from storewarden.cli.usage import JSON, Exit, Parser, first_interrupt_waits, interrupt
from storewarden.config import Config, ConfigError
from storewarden.errors import StorewardenError, reason_of
from storewarden.explain.buildlog import BuildLog, Reading, Seen, pass_on
from storewarden.explain.failures import Step, issue_url, plainly_quoted
from storewarden.readable import (
    PLAIN,
    USUAL,
    Mark,
    Style,
    ThisStore,
    count_text,
    json_text,
    quoted,
    shown,
    size_text,
    typed,
)

_WHAT = "explain what? say PATH..., or - alone for a log on stdin, or --log FILE"
_EXPLAIN = """\
Of each path: is it valid, whose is it, who holds and uses it, what would
storewarden do, what can you do. Of a build's log, on stdin (-) or in a file:
the known failures in it, cause and cure. What comes on stdin is passed through
to stdout as it is; its explanation follows on stderr. It needs no privilege,
takes no lock, and changes nothing (docs/explain.md).
examples:
  storewarden explain ./result
  storewarden explain /nix/store/...-hello.drv
  nix build 2>&1 | storewarden explain -
  storewarden explain --log build.log --json
"""
_INDENT = "    "
_PATHS = "PATHS"
_QUOTED = re.compile(r"'(/[0-9A-Za-z+\-._?=/ ]+)'", re.ASCII)
"""A file that a line names, if it can be copied as it is."""
_PERHAPS = (
    "a line resembles it; it may be a test's, of something that went on, or before another error"
)


class LogUnreadableError(StorewardenError):
    """The log cannot be read; nothing was changed by it."""


def define_explain(command: Parser) -> None:
    """What it takes and does."""
    command.does(_explain, _EXPLAIN)
    command.add_argument(
        "paths", nargs="*", metavar="PATH", help="a store path, base name, lock file, or link; or -"
    )
    command.add_argument("--log", metavar="FILE", help="explain the log in this file")
    command.add_argument("--json", action="store_true", help=JSON)
    add_options(command, *STORE, "audit-log")


def _explain(arguments: argparse.Namespace) -> int:
    if arguments.log is not None or arguments.paths == ["-"]:
        return _explain_log(arguments)
    from storewarden.cli.explain_paths import explain_paths  # noqa: PLC0415 - not for a log
    from storewarden.explain.entry import NotInStoreError  # noqa: PLC0415 - likewise

    if not arguments.paths or "-" in arguments.paths:
        raise ConfigError(_WHAT)
    try:
        silent = explain_paths(config_of(arguments), arguments.paths, as_json=arguments.json)
    except NotInStoreError as cause:
        console.error(str(cause))
        return Exit.WRONG_USE
    if silent:
        console.error(f"Nix could not be asked: {silent}")
    return Exit.UNREADABLE if silent else Exit.OK


def _explain_log(arguments: argparse.Namespace) -> int:
    if arguments.log is not None and arguments.paths:
        raise ConfigError(_WHAT)
    # Who writes the log must not be ended by a file that they know nothing of.
    config = config_of(arguments, whatever_is_wrong=arguments.log is None)
    recognized = _read_and_tell(config, arguments.log, as_json=arguments.json)
    if console.unshown:
        return Exit.NOT_ALL
    return Exit.OK if recognized else Exit.FOUND


def _read_and_tell(config: Config, path: str | None, *, as_json: bool) -> bool:
    """Read the log to its end and tell what is known; whether anything is.

    It is in the file `path`; None is stdin, which is passed through to stdout unless JSON goes
    there. `LogUnreadableError` if it cannot be read; `KeyboardInterrupt`, after all has been told,
    if it was interrupted.
    """
    log = BuildLog(config.store_dir)
    this = ThisStore(config.store_dir.path, config.state_dir)

    def tell_all(say: Callable[..., None], look: Style) -> bool:
        reading = log.reading()
        lines = [reading_json(reading, this)] if as_json else reading_lines(reading, look, this)
        say(*lines)
        return bool(reading.known)

    if path is not None:
        _read_file(path, log)
        return tell_all(console.show, console.style())
    # Ctrl-C goes to the build too, which has something to say about it.
    waits: AbstractContextManager[list[int]] = first_interrupt_waits(
        "interrupted; the log was not read to its end"
    )
    with nullcontext([]) if os.isatty(0) else waits as come:
        trouble = _passed(log, None if as_json or sys.stdout is None else 1)
    if not as_json:
        console.aside("")  # the log may have ended within a line
    recognized = tell_all(console.show if as_json else console.aside, console.aside_style())
    if come:
        interrupt("interrupted")
    if trouble is not None and not isinstance(trouble, BrokenPipeError):
        console.lost(f"the log could not be passed on whole: {reason_of(trouble)}")
    return recognized


def _passed(log: BuildLog, sink: int | None) -> OSError | None:
    try:
        return pass_on(0, sink, log.feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log from stdin: {reason_of(cause)}") from cause


def _read_file(path: str, log: BuildLog) -> None:
    try:
        with open(path, "rb", buffering=0) as file, console.progress(f"reading {path}"):
            size, read = os.fstat(file.fileno()).st_size, 0

            def feed(piece: bytes) -> None:
                nonlocal read
                read += len(piece)
                console.tell(f"reading {path}: {size_text(read)} of {size_text(max(size, read))}")
                log.feed(piece)

            pass_on(file.fileno(), None, feed)
    except OSError as cause:
        raise LogUnreadableError(f"cannot read the log {path}: {reason_of(cause)}") from cause


def reading_lines(reading: Reading, style: Style = PLAIN, this: ThisStore = USUAL) -> Iterator[str]:
    """The known failures, causes and cures in this store, for a person; or that none is known."""
    for seen in reading.seen:
        yield from _failure_lines(seen, style, this)
        yield ""
    lines, possible = count_text(reading.lines, "line"), len(reading.seen) - len(reading.known)
    perhaps = f"; {possible} more may be one" if possible else ""
    if reading.known:
        yield f"{count_text(len(reading.known), 'known failure')} in {lines}{perhaps}"
        return
    if possible:
        yield f"no failure is known for certain in {lines}; {possible} may be one"
    else:
        yield f"no known failure in {lines}: nothing can be said about this log"
    if reading.failed:
        yield "these were not built; their whole logs may tell why:"
    for path in reading.failed:
        command = this.command(f"nix log {shlex.quote(path)}")
        yield f"{_INDENT}{style.mark(Mark.NAME, command)}"


def _failure_lines(seen: Seen, style: Style, this: ThisStore) -> Iterator[str]:
    failure = seen.failure
    if seen.certain:
        yield style.mark(Mark.WRONG, failure.title)
    else:
        yield f"Perhaps: {style.mark(Mark.KEPT, failure.title)}"
        yield from style.wrapped(_INDENT, _PERHAPS, _INDENT)
    often = f" (and {seen.times - 1} more)" if seen.times > 1 else ""
    yield f"{_INDENT}line {seen.number}{often}: {quoted(seen.line.strip())}"
    for path in seen.paths:
        yield f"{_INDENT}about: {style.mark(Mark.NAME, shown(path))}"
    if seen.certain:
        yield from style.wrapped(_INDENT, f"why: {typed(failure.cause)}", _INDENT * 2)
    if failure.tell:
        yield from style.wrapped(_INDENT, f"how to tell: {typed(failure.tell)}", _INDENT * 2)
    if not seen.certain:
        return
    yield f"{_INDENT}what to do:"
    for step in failure.steps:
        yield from style.wrapped(_INDENT * 2, typed(step.words), _INDENT * 2)
        if command := _command(step, seen, this):
            yield f"{_INDENT * 3}{style.mark(Mark.NAME, command)}"
    yield from style.wrapped(_INDENT, f"versions: {failure.versions}", _INDENT * 2)
    yield from (f"{_INDENT}see: {issue_url(issue)}" for issue in failure.issues)


def _command(step: Step, seen: Seen, this: ThisStore) -> str:
    """As it is typed; empty where it has none, or wants a path and the log names none."""
    paths = seen.paths
    if _PATHS in step.command and not paths:
        # What lies below no store path, such as in the trash.
        named = _QUOTED.search(plainly_quoted(seen.line))
        if named is None or not named[1].startswith(f"{this.store_dir}/"):
            return ""
        paths = (named[1],)
    return this.template(step.command).replace(_PATHS, " ".join(map(shlex.quote, paths)))


def reading_json(reading: Reading, this: ThisStore = USUAL) -> str:
    """The same as one JSON object."""
    document = {
        "lines": reading.lines,
        "failures": [_failure_json(seen, this) for seen in reading.known],
        "possible": [_failure_json(seen, this) for seen in reading.seen if not seen.certain],
        "paths": list(reading.failed),
    }
    return json_text(document)


def _failure_json(seen: Seen, this: ThisStore) -> dict[str, object]:
    failure = seen.failure
    return {
        "name": failure.name,
        "title": failure.title,
        "cause": typed(failure.cause),
        "tell": typed(failure.tell) or None,
        "steps": [
            {"words": typed(step.words), "command": _command(step, seen, this) or None}
            for step in failure.steps
        ],
        "versions": failure.versions,
        "issues": [issue_url(issue) for issue in failure.issues],
        "line": seen.line,
        "lineNumber": seen.number,
        "times": seen.times,
        "paths": list(seen.paths),
    }
