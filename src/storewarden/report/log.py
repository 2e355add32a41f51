# SPDX-License-Identifier: MIT
"""What a log tells, for people and as JSON (docs/json.md). Builders choose what is in a log."""

import json
import shlex
from collections.abc import Iterator, Sequence

from storewarden.copyable import USUAL, ThisStore
from storewarden.explain.buildlog import Reading, Seen
from storewarden.explain.failures import Step, issue_url
from storewarden.readable import count_text, shown
from storewarden.report import VERSION
from storewarden.style import PLAIN, Mark, Style

_INDENT = "    "
_PATHS = "PATHS"


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
        "version": VERSION,
        "lines": reading.lines,
        "failures": [_failure_json(seen, this) for seen in reading.seen],
        "paths": list(reading.failed),
    }
    return json.dumps(document, indent=2)


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
