# SPDX-License-Identifier: MIT
"""The failures that `explain` recognizes: what stands in failures.toml, and how a line fits."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoted import known
from storewarden.explain.failures import (
    About,
    Failure,
    Sign,
    Step,
    catalogue,
    issue_url,
    plain,
    read_failures,
    signs,
)
from storewarden.readable import REPAIRING

EVERY = pytest.mark.parametrize("failure", catalogue(), ids=lambda failure: failure.name)
TOML = Path(__file__).parents[2] / "src/storewarden/explain/failures.toml"
PAGE = Path(__file__).parents[2] / "docs/explain.md"
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="…"), max_size=30)


ROW = '''
[step.again]
words = """
Then build
again."""
[failure.x-y]
title = "t"
cause = "c"
steps = ["again", { words = "w", command = "nix  b" }]
issues = ["NixOS/nix#1"]
versions = "all"
own-signs = ["a…b"]
about = "last"
needs-path = true
'''


def test_a_row_becomes_a_failure_and_breaks_in_a_text_are_spaces() -> None:
    (failure,) = read_failures(ROW)
    assert failure == Failure(
        name="x-y",
        title="t",
        cause="c",
        steps=(Step("Then build again."), Step("w", "nix  b")),
        issues=("NixOS/nix#1",),
        versions="all",
        own_signs=(Sign(("a", "b")),),
        about=About.LAST,
        needs_path=True,
    )


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('cause = "c"\n', ""),
        ('title = "t"', 'titel = "t"'),
        ("own-signs", "own_signs"),
        ("own-signs", "name"),
        ('title = "t"', "title = 1"),
        ('"last"', '"middle"'),
        ("needs-path = true", 'needs-path = "true"'),
        ("needs-path = true", "needs-path = true\n[failure.x-y]"),
        ('["again",', '["agian",'),
        ('["again",', "[7,"),
        ('words = "w"', 'word = "w"'),
        ('words = "w", ', ""),
        ('["NixOS/nix#1"]', '"NixOS/nix#1"'),
        ('["NixOS/nix#1"]', "[1]"),
        ("[step.again]", "[step.again]\nwhy = 1"),
        ("[step.again]", "[steps.again]"),
        ("[failure.x-y]", "[failure]"),
        ("[failure.x-y]", "[[failure.x-y]]"),
    ],
)
def test_a_key_that_is_unknown_missing_or_of_another_type_is_an_error(
    right: str, wrong: str
) -> None:
    assert right in ROW
    with pytest.raises((ValueError, TypeError)):
        read_failures(ROW.replace(right, wrong))


def test_no_sign_stands_twice() -> None:
    every = [sign for one in catalogue() for sign in (*one.signs, *one.any_signs)]
    assert len(every) == len(set(every))


def test_a_public_or_stated_source_stands_behind_every_failure() -> None:
    names = {failure.name for failure in catalogue()}
    quoted = {one.name for one in known()}
    assert sorted(names - quoted) == [], "tests/logs/known.txt quotes no log with these"
    assert sorted(quoted - names) == [], "src/storewarden/explain/failures.toml has no such rows"


def test_what_repairs_is_told_as_nix_does_it() -> None:
    commands = {step.command for failure in catalogue() for step in failure.steps}
    repairing = {command for command in commands if "--repair" in command}
    assert repairing
    assert all(command.endswith(f" {REPAIRING}") for command in repairing)


def test_no_command_has_a_gap_that_whoever_reads_it_must_fill_in() -> None:
    filled = re.compile(r"\$\w+|\w+=|PATHS")
    commands = {step.command for failure in catalogue() for step in failure.steps}
    gaps = {one for one in commands if re.search(r"\b[A-Z]{2,}\b|<|…|\.\.\.", filled.sub("", one))}
    assert gaps == set()


def test_a_step_that_has_a_name_is_taken_more_than_once() -> None:
    text = TOML.read_text(encoding="utf-8")
    for name in re.findall(r"^\[step\.([a-z]+)\]$", text, re.MULTILINE):
        assert text.count(f'"{name}"') > 1, name


def test_at_least_thirty_texts_are_quoted_from_public_issues() -> None:
    assert len({one.source for one in known() if "https://github.com/" in one.source}) >= 30


@EVERY
def test_what_is_said_of_a_failure_is_whole(failure: Failure) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", failure.name)
    texts = (failure.title, failure.cause, failure.versions, *(s.words for s in failure.steps))
    for text in texts:
        assert text
        assert text == text.strip()
        assert text.isascii()
    assert failure.steps
    assert failure.issues
    assert failure.signs or failure.any_signs or failure.own_signs
    assert failure.needs_path or not failure.in_the_way


@EVERY
def test_every_issue_has_an_address(failure: Failure) -> None:
    for issue in failure.issues:
        assert re.fullmatch(
            r"https://github\.com/[\w.-]+/[\w.-]+/issues/[1-9][0-9]*", issue_url(issue)
        )


@EVERY
def test_every_sign_is_written_in_the_letters_that_lines_are_compared_in(failure: Failure) -> None:
    for sign in (*failure.signs, *failure.any_signs, *failure.own_signs):
        middle = "…".join(sign.parts)
        assert plain(f"x{middle}x") == f"x{middle}x"
        assert len(sign.mark) > 10, sign


@pytest.mark.parametrize("text", ["NixOS/nix", "13703", "a/b#", "a/b#1/../x", "https://x/y#1"])
def test_what_is_no_issue_has_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not an issue"):
        issue_url(text)


@given(st.lists(WORDS, min_size=2, max_size=5), st.data())
def test_a_line_of_the_parts_with_any_text_between_fits(
    parts: list[str], data: st.DataObject
) -> None:
    between = [data.draw(WORDS) for _ in parts[1:]]
    line = parts[0] + "".join(
        f"{text}{part}" for text, part in zip(between, parts[1:], strict=True)
    )
    assert Sign(tuple(parts)).fits(line)


@pytest.mark.parametrize(
    ("sign", "line", "fits"),
    [
        ("a", "a", True),
        ("a", "ab", False),
        ("a…", "ab", True),
        ("…b", "ab", True),
        ("a…a", "a", False),
        ("a…a", "aa", True),
        ("…ab…b", "ab", False),
        ("…ab…b", "abb", True),
        ("a…b…c", "a c b", False),
    ],
)
def test_parts_stand_in_order_and_do_not_overlap(sign: str, line: str, fits: bool) -> None:  # noqa: FBT001
    (read,) = signs(sign)
    assert read.fits(line) is fits


@pytest.mark.parametrize("quoted", ["'x'", '"x"', "`x'", "\u2018x\u2019", "\u201cx\u201d"])
def test_every_nix_quotes_in_its_own_way(quoted: str) -> None:
    assert plain(f"Path {quoted} is not valid. ") == "path x is not valid"


def test_the_page_lists_every_failure_as_failures_toml_has_it_in_that_order() -> None:
    rows = [
        f"| `{failure.name}` | {failure.title} |"
        f" {', '.join(f'[{issue}]({issue_url(issue)})' for issue in failure.issues)} |"
        f" {failure.versions} |"
        for failure in catalogue()
    ]
    _, _, after = PAGE.read_text(encoding="utf-8").partition("\n| name | what happened |")
    table = [row for row in after.split("\n\n")[0].splitlines()[2:] if row]
    missing = "\n".join(row for row in rows if row not in table)
    assert table == rows, f"docs/explain.md lacks these rows, or has others:\n{missing}"
