# SPDX-License-Identifier: MIT
"""What a log tells, for people and as JSON (docs/json.md). Builders choose what is in a log."""

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from storewarden.buildlog import Reading, Seen
from storewarden.failures import Step, issue_url
from storewarden.report import VERSION, shown

_WIDTH = 100
_INDENT = "    "
_PATHS = "PATHS"


def reading_lines(reading: Reading) -> Iterator[str]:
    """The known failures, causes and cures, for a person; or that none is known."""
    for seen in reading.seen:
        yield from _failure_lines(seen)
        yield ""
    count = len(reading.seen)
    lines = f"{reading.lines} line{'' if reading.lines == 1 else 's'}"
    if count:
        yield f"{count} known failure{'' if count == 1 else 's'} in {lines}"
        return
    yield f"no known failure in {lines}: nothing can be said about this log"
    if reading.failed:
        yield "these were not built; their whole logs may tell why:"
        yield from (f"{_INDENT}nix log {shlex.quote(path)}" for path in reading.failed)


def _failure_lines(seen: Seen) -> Iterator[str]:
    failure = seen.failure
    yield failure.title
    often = f" (and {seen.times - 1} more)" if seen.times > 1 else ""
    yield f"{_INDENT}line {seen.number}{often}: {shown(seen.line.strip())}"
    yield from (f"{_INDENT}about: {shown(path)}" for path in seen.paths)
    yield from _wrapped("why: ", failure.cause)
    if failure.tell:
        yield from _wrapped("how to tell: ", failure.tell)
    yield f"{_INDENT}what to do:"
    for step in failure.steps:
        yield from _wrapped(_INDENT, step.words)
        if step.command:
            yield f"{_INDENT * 3}{_command(step, seen.paths)}"
    yield from _wrapped("versions: ", failure.versions)
    yield from (f"{_INDENT}see: {issue_url(issue)}" for issue in failure.issues)


def _wrapped(head: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{head}{text}",
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT * 2,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _command(step: Step, paths: Sequence[str]) -> str:
    return step.command.replace(_PATHS, " ".join(map(shlex.quote, paths)) or "PATH")


def reading_json(reading: Reading) -> str:
    """The same as one JSON object."""
    document = {
        "version": VERSION,
        "lines": reading.lines,
        "failures": [_failure_json(seen) for seen in reading.seen],
        "paths": list(reading.failed),
    }
    return json.dumps(document, indent=2)


def _failure_json(seen: Seen) -> dict[str, object]:
    failure = seen.failure
    return {
        "name": failure.name,
        "title": failure.title,
        "cause": failure.cause,
        "tell": failure.tell or None,
        "steps": [
            {"words": step.words, "command": _command(step, seen.paths) or None}
            for step in failure.steps
        ],
        "versions": failure.versions,
        "issues": [issue_url(issue) for issue in failure.issues],
        "line": seen.line,
        "lineNumber": seen.number,
        "times": seen.times,
        "paths": list(seen.paths),
    }
