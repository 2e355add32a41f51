# SPDX-License-Identifier: MIT
"""The catalogue of known failures: its form, and how a line is held against a sign."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoted import known
from storewarden.explain.catalogue import CATALOGUE
from storewarden.explain.failures import Failure, Sign, issue_url, plain, signs

EVERY = pytest.mark.parametrize("failure", CATALOGUE, ids=lambda failure: failure.name)
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="…"), max_size=30)


def test_no_two_failures_have_one_name_or_one_sign() -> None:
    names = [failure.name for failure in CATALOGUE]
    assert len(names) == len(set(names))
    every = [sign for failure in CATALOGUE for sign in failure.signs]
    assert len(every) == len(set(every))


def test_a_public_or_stated_source_stands_behind_every_failure() -> None:
    assert {one.name for one in known()} == {failure.name for failure in CATALOGUE}


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
    assert failure.signs or failure.own_signs


@EVERY
def test_every_issue_has_an_address(failure: Failure) -> None:
    for issue in failure.issues:
        assert re.fullmatch(
            r"https://github\.com/[\w.-]+/[\w.-]+/issues/[1-9][0-9]*", issue_url(issue)
        )


@EVERY
def test_every_sign_is_written_in_the_letters_that_lines_are_compared_in(failure: Failure) -> None:
    for sign in (*failure.signs, *failure.own_signs):
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
    assert plain(f"Path {quoted} is not valid. ") == "path 'x' is not valid"


@EVERY
def test_the_page_lists_every_failure_as_the_catalogue_has_it(failure: Failure) -> None:
    page = Path(__file__).parents[2].joinpath("docs/explain.md").read_text(encoding="utf-8")
    issues = ", ".join(f"[{issue}]({issue_url(issue)})" for issue in failure.issues)
    assert f"\n| `{failure.name}` | {failure.title} | {issues} | {failure.versions} |\n" in page
