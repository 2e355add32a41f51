# SPDX-License-Identifier: MIT
"""The argparse tree: what it takes, what it refuses, and what nothing given means."""

import re

import pytest

from storewarden.cli import main, parser
from storewarden.cli.options import without_file
from storewarden.config import Config
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("007s", 7)],
)
def test_a_length_of_time_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    assert parser().parse_args(["scan", "--min-age", text]).min_age == seconds


_ONE_LINE = r"storewarden: error: [^\n]+ \(see: storewarden.* --help\)\n"
REFUSED = [
    ["scan", "--min-age", "5x"],
    ["scan", "--min-age", "1.5s"],
    ["scan", "--min-age=-5s"],
    ["scan", "--min-age", ""],
    ["scan", "--min-age", "5 s"],
    ["scan", "--min-age", "\u0665s"],
    ["scan", "--min-age", "inf"],
    ["scan", "--min-age", "1e3"],
    ["scan", "--min-age", "5s\n"],
    ["scan", "--min-age"],
    ["scan", "--dry"],
    ["scan", "--ye"],
    ["scan", "--js"],
    ["scan", "--force"],
    ["scan", "--kind", "valid"],
    ["scan", "--kind", "OUTPUT"],
    ["scan", "--kind", ""],
    ["scan", "--store-dir", "nix/store"],
    ["scan", "--store-dir", "/nix/store/"],
    ["scan", "--store-dir", "/nix/../store"],
    ["scan", "--store-dir", "/"],
    ["scan", "--state-dir", "var/nix"],
    ["scan", "--state-dir", ""],
    ["scan", "extra"],
    ["Scan"],
    ["sca"],
    ["explain", "--js", "x"],
    ["locks", "extra"],
    ["locks", "--al"],
    ["audit", "sho"],
    ["audit", "show", "--js"],
    ["demo", "--yes"],
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_wrong_use_ends_with_2_and_one_line_that_says_where_to_read_on(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(_ONE_LINE, told.err)


@pytest.mark.parametrize(
    ("words", "next_word"), [([], "storewarden scan --dry-run"), (["audit"], "show")]
)
def test_without_a_subcommand_it_shows_what_there_is(
    words: list[str], next_word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out.startswith(f"usage: {' '.join(['storewarden', *words])} ")
    assert next_word in told.out
    assert told.err == ""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["scna"], "scan"),
        (["scan", "--yess"], "--yes"),
        (["scan", "--kind", "ouput"], "output"),
        (["audit", "sow"], "show"),
        (["help", "stauts"], "status"),
    ],
)
def test_of_what_is_mistyped_it_is_told_what_may_have_been_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert f"; did you mean '{meant}'? (see: storewarden" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["check", "--quiet"], ["check", "--kind"], ["scan", "--foo"]])
def test_what_has_but_the_dashes_in_common_was_not_meant(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert "did you mean" not in capsys.readouterr().err


def test_nothing_given_means_to_look_at_the_usual_store_and_no_more() -> None:
    given = parser().parse_args(["scan"])
    assert [given.yes, given.dry_run, given.json, given.exit_code] == [False] * 4
    assert given.kind is None
    config = without_file(given)
    assert config == Config()
    assert (config.store_dir, config.state_dir) == (StoreDir("/nix/store"), "/nix/var/nix")
    assert (config.min_age, config.nix) == (None, None)


def test_kinds_add_up() -> None:
    given = parser().parse_args(["scan", "--kind", "output", "--kind=lock"])
    assert given.kind == [EntryKind.OUTPUT, EntryKind.LOCK]


def test_a_slash_at_the_end_of_the_state_directory_is_of_no_account() -> None:
    assert parser().parse_args(["scan", "--state-dir", "/a/b/"]).state_dir == "/a/b"
