# SPDX-License-Identifier: MIT
"""The part that runs as root stays small enough to be read."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

from test_trust import TRUSTED, sources

MOST_LINES = 3264
"""Of code, without blanks, comments and docstrings, in all that runs as root."""


def code_lines(source: Path) -> int:
    """Lines of a file that hold code: neither blank, nor comment, nor docstring."""
    text = source.read_text(encoding="utf-8")
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        # A text that stands alone: a docstring, or the words below a member.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_code_lines_are_counted_without_what_is_only_said(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        '"""One.\n\nTwo."""\n\n# three\nx = (\n    1  # four\n)\n"""Of x."""\n\n\ny = 2\n'
    )
    assert code_lines(source) == 4


def test_what_runs_as_root_can_be_read_in_one_sitting(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {part: sum(map(code_lines, sources(part))) for part in TRUSTED}
    with capsys.disabled():
        print("\nlines of code:", ", ".join(f"{part} {n}" for part, n in counts.items()))  # noqa: T201
    assert sum(counts.values()) <= MOST_LINES
