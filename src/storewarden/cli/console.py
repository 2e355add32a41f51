# SPDX-License-Identifier: MIT
"""Results on stdout, the rest on stderr; neither a reader that has gone nor a full disk ends it."""

import os
import sys
from typing import TextIO

from storewarden.cli.progress import out_of_the_way
from storewarden.readable import shown
from storewarden.style import Mark, Style, style_of

_INDENT = "    "
unshown: list[str] = []
"""What could not be written to stdout, a full disk there; told by the exit code."""


def style() -> Style:
    """How results look, where they go."""
    return style_of(sys.stdout)


def aside_style() -> Style:
    """The same of what is no result."""
    return style_of(sys.stderr)


def show(line: str) -> None:
    """A line of the results."""
    try:
        with out_of_the_way():
            print(line, flush=True)  # noqa: T201 - results go to stdout
    except BrokenPipeError:
        _silence(sys.stdout)  # the reader (`| head`) has had enough
    except OSError as cause:
        lost(f"cannot write the results: {os.strerror(cause.errno or 0).lower()}")
        _silence(sys.stdout)


def lost(reason: str) -> None:
    """Some of the results could not be shown: say why, and let the exit code tell."""
    error(reason)
    unshown.append(reason)


def aside(line: str) -> None:
    """A line that is no result."""
    if sys.stderr is not None:  # print() would take stdout instead
        try:
            with out_of_the_way():
                print(line, file=sys.stderr, flush=True)  # noqa: T201 - what is not a result
        except OSError:
            _silence(sys.stderr)


def note(text: str) -> None:
    """Something that whoever is there should know."""
    aside(aside_style().folded("storewarden: ", shown(text), _INDENT))


def error(text: str) -> None:
    """Why it does not go on, or not well."""
    style = aside_style()
    aside(style.folded("storewarden: ", f" {shown(text)}", _INDENT, "error:", Mark.WRONG))


def _silence(stream: TextIO) -> None:
    """Nothing more is shown there, not even at the end; what was begun is ended all the same."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
