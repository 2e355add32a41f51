# SPDX-License-Identifier: MIT
"""What people read is safe, in the same words, in colours if wanted, and fits where it goes.

Commands to copy are as they are for the usual store, and have all it takes for another.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.cli import COMMANDS
from storewarden.readable import (
    PLAIN,
    USUAL,
    Caller,
    Mark,
    Style,
    ThisStore,
    age_text,
    caller_of,
    can_be_copied,
    count_text,
    quoted,
    repair_path,
    shown,
    size_text,
    style_of,
)
from terminal import assert_only_basic_colours, terminal, without_colours

XTERM = {"TERM": "xterm"}
PATH = "/nix/store/5hm84hbpwgb1byhkddcqb0k63rr2cyjx-some-longer-name-of-a-package-1.2.3"
COLOURED = Style(colours=True)
OTHER = ThisStore("/srv/nix/store", "/srv/nix/var")
OPTIONS = "--store-dir /srv/nix/store --state-dir /srv/nix/var"
NIX = "env NIX_STORE_DIR=/srv/nix/store NIX_STATE_DIR=/srv/nix/var"
PLACES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map(
    "/{}".format
)


@given(st.text() | st.binary().map(os.fsdecode))
def test_whatever_is_shown_is_one_line_of_printable_ascii(text: str) -> None:
    assert shown(text).isascii()
    assert shown(text).isprintable()


def test_what_is_plain_is_shown_as_it_is_and_the_rest_escaped() -> None:
    assert shown("/nix/store/a-b_c.d?=+") == "/nix/store/a-b_c.d?=+"
    assert shown("a\x1b[31m\n\t\udcff\u202e") == r"a\x1b[31m\n\t\udcff\u202e"


@given(st.text() | st.binary().map(os.fsdecode))
def test_whatever_is_quoted_is_one_line_of_printable_ascii(text: str) -> None:
    assert quoted(text).isascii()
    assert quoted(text).isprintable()


def test_what_a_log_draws_and_sets_well_is_quoted_as_ascii_has_it() -> None:
    assert quoted("\u2503 \u2026 path \u2018/x\u2019 \u2014 no") == "| ... path '/x' - no"
    assert quoted("\u2570\u2500\u25b6 \u26a0\ufe0f \u274c \u202e") == r"+-> ! x \u202e"
    assert shown("a\u2010b") == r"a\u2010b", "a name is told from every other"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**4, "3072.0 GiB"),
    ],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (86400.0 * 2, "2 days")],
)
def test_ages_are_readable(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(0, "file", "0 files"), (1, "file", "1 file"), (2, "process", "2 processes")],
)
def test_one_is_one_and_all_else_are_many(count: int, noun: str, text: str) -> None:
    assert count_text(count, noun) == text


def at_terminal(columns: int, environment: dict[str, str]) -> Style:
    """The style of a stream at a terminal of that width."""
    with terminal(columns) as (_, there), os.fdopen(there, "w", encoding="ascii") as stream:
        return style_of(stream, environment)


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        (XTERM, True),
        (XTERM | {"NO_COLOR": ""}, True),
        (XTERM | {"NO_COLOR": "0"}, False),
        (XTERM | {"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, True),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "0"}, False),
    ],
)
def test_a_terminal_has_colours_unless_somebody_says_no(
    environment: dict[str, str],
    colours: bool,  # noqa: FBT001 - the expectation
) -> None:
    assert at_terminal(80, environment).colours is colours


def test_a_pipe_has_colours_only_where_they_are_forced() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="ascii") as stream:
        assert style_of(stream, XTERM) == PLAIN
        assert style_of(stream, XTERM | {"CLICOLOR_FORCE": ""}) == PLAIN
        assert style_of(stream, XTERM | {"CLICOLOR_FORCE": "1"}) == COLOURED
        assert style_of(None, XTERM) == PLAIN, "a stream that was closed"


@pytest.mark.parametrize(
    ("told", "columns"), [({}, 123), ({"COLUMNS": "66"}, 66), ({"COLUMNS": "x"}, 123)]
)
def test_the_width_is_that_of_the_terminal_or_what_columns_says(
    told: dict[str, str], columns: int
) -> None:
    assert at_terminal(123, XTERM | told).width == columns


def test_a_terminal_that_does_not_know_its_width_has_eighty_columns() -> None:
    assert at_terminal(0, XTERM).width == 80
    assert at_terminal(0, XTERM | {"COLUMNS": "-3"}).width == 80


@given(
    text=st.text().map(shown),
    width=st.integers(min_value=-1, max_value=300),
    lead=st.sampled_from(["", "kept", "no sign of life, root still has to check"]),
)
def test_no_word_is_lost_and_only_a_single_word_is_wider_than_the_terminal(
    text: str, width: int, lead: str
) -> None:
    style = Style(width=width, colours=True)
    lines = style.wrapped("    ", f" {text}", "      ", lead, Mark.KEPT)
    assert_only_basic_colours("\n".join(lines))
    plain = [without_colours(line) for line in lines]
    assert " ".join(plain).split() == f"{lead} {text}".split()
    assert all(line.startswith("    ") for line in plain)
    for line in plain:
        assert len(line) <= max(40, width) or len(line.split()) <= 1 or (lead and lead in line)


def test_a_path_and_a_command_stay_whole_on_a_line_of_their_own() -> None:
    this = ThisStore("/srv/store", "/srv/state")
    for command in (
        repair_path(PATH),
        this.command(f"nix-store --delete {PATH}"),
        this.command("sudo storewarden scan --yes"),
        "sudo storewarden scan --yes --kind lock --min-age 0s --config '/a b' --audit-log ./log",
        "sudo storewarden scan --yes --nix n --build-group g",
    ):
        text = f"to fetch or build it again, if it is not whole: {command}"
        for width in (40, 80):
            lines = Style(width=width).wrapped("    ", text, "    ")
            assert f"    {command}" in lines, lines


def test_a_number_stays_beside_its_unit() -> None:
    for text in ("process 4711", "10 min", "20.0 KiB", "uid 30001", "2 days"):
        filling = "x" * (80 - 4 - len(text) + 1)
        lines = PLAIN.wrapped("    ", f"{filling} {text}", "    ")
        assert lines == [f"    {filling}", f"    {text}"]


def test_prose_does_not_grow_wider_than_can_be_read() -> None:
    lines = Style(width=500).wrapped("    ", "word " * 100, "    ")
    assert max(map(len, lines)) <= 120


def test_what_programs_read_by_line_is_one_line_but_where_somebody_looks_at_it() -> None:
    text = f": {PATH}: its lock is held, so a build or copy of it is alive"
    assert PLAIN.folded("", text, "    ", "kept", Mark.KEPT) == f"kept{text}"
    folded = Style(terminal=True).folded("", text, "    ", "kept", Mark.KEPT)
    assert folded.split() == f"kept{text}".split()
    assert "\n    " in folded


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("sudo storewarden scan --yes", f"sudo storewarden scan --yes {OPTIONS}"),
        ("storewarden explain /x", f"storewarden explain /x {OPTIONS}"),
        ("nix-store --gc", f"{NIX} nix-store --gc"),
        ("sudo nix-store --verify", f"sudo {NIX} nix-store --verify"),
        ("nix log /x.drv", f"{NIX} nix log /x.drv"),
        (
            "nix-store -q /x | xargs nix-store -d",
            f"{NIX} nix-store -q /x | xargs {NIX} nix-store -d",
        ),
        ("nix-store -d /x && nix-store -r /y", f"{NIX} nix-store -d /x && {NIX} nix-store -r /y"),
        ("rm /nix/store/nix-store", "rm /nix/store/nix-store"),
        ("sudo kill 7", "sudo kill 7"),
        ("", ""),
    ],
)
def test_a_command_names_the_store_unless_it_is_the_usual_one(usual: str, other: str) -> None:
    assert USUAL.command(usual) == usual
    assert OTHER.command(usual) == other
    assert OTHER.command("rm /nix/store/x") == "rm /nix/store/x", "a path is filled in already"


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ("findmnt --target /nix/store", "findmnt --target /srv/nix/store"),
        (
            "sudo cp -a /nix/var/nix/db /nix/var/nix/db.before",
            "sudo cp -a /srv/nix/var/db /srv/nix/var/db.before",
        ),
        ("df -h /nix /var/tmp", "df -h /nix /var/tmp"),
        ("storewarden explain PATHS", f"storewarden explain PATHS {OPTIONS}"),
    ],
)
def test_in_what_is_said_of_every_store_its_directories_are_put_in(usual: str, other: str) -> None:
    assert USUAL.template(usual) == usual
    assert OTHER.template(usual) == other


@given(PLACES, PLACES)
def test_a_shell_reads_the_very_directories_whatever_they_are_called(
    store: str, state: str
) -> None:
    this = ThisStore(store, state)
    asked = shlex.split(this.command("storewarden scan"))
    assert asked[2:] in ([], ["--store-dir", store, "--state-dir", state])
    asked = shlex.split(this.command("sudo nix-store --gc"))
    assert asked[1:-2] in ([], ["env", f"NIX_STORE_DIR={store}", f"NIX_STATE_DIR={state}"])


def test_what_a_terminal_would_not_show_as_it_is_cannot_be_copied() -> None:
    assert can_be_copied("ls -lad '/nix/store/x; touch y'")
    for name in ("a\nb", "\x1b[2J", "\u202e", "é", "\udcff"):
        assert not can_be_copied(f"ls -lad '/nix/store/{name}'")


def test_a_shell_reads_the_empty_list_of_features_as_one_word() -> None:
    words = ["--repair-path", "/srv/my store/x", "--option", "experimental-features", ""]
    assert shlex.split(repair_path("/srv/my store/x")) == ["sudo", "nix-store", *words]


VENV = "/home/alice/sw/.venv/bin"


def alice(tmp_path: Path, **changes: Any) -> Caller:  # noqa: ANN401 - of any field
    """Who runs it from a checkout, with sudo and the usual PATH looking in empty directories."""
    path, sudo_path = f"{tmp_path}/bin", f"{tmp_path}/sudo"
    caller = Caller(f"{VENV}/python", f"{VENV}/storewarden", "", False, path, sudo_path)  # noqa: FBT003 - no root
    return replace(caller, **changes)


def put_program(place: Path, first: str = "#!/bin/sh") -> None:
    place.parent.mkdir(exist_ok=True)
    place.write_text(f"{first}\n")
    place.chmod(0o755)


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("sudo storewarden scan --yes", f"sudo {VENV}/storewarden scan --yes"),
        (
            "look: storewarden scan --dry-run; then go",
            f"look: {VENV}/storewarden scan --dry-run; then go",
        ),
        (
            "only root can: sudo storewarden setup (or",
            f"only root can: sudo {VENV}/storewarden setup (or",
        ),
        ("(see: storewarden --help)", f"(see: {VENV}/storewarden --help)"),
        ("python -m storewarden scan", "python -m storewarden scan"),
        ("an older storewarden than this; the storewarden service", ...),
        ("sudo systemctl start storewarden", ...),
        ("With sudo the path stands there", ...),
        ("by sudo of uid 7", ...),
    ],
)
def test_a_command_of_ours_is_typed_with_the_place_where_sudo_does_not_find_it(
    written: str, typed: object, tmp_path: Path
) -> None:
    caller = alice(tmp_path)
    expected = written if typed is ... else typed
    assert caller.typed(written) == expected
    assert caller.typed(caller.typed(written)) == expected, "twice is once"
    assert Caller().typed(written) == written, "whoever reads it is not known"


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("sudo storewarden scan --yes", f"{VENV}/storewarden scan --yes"),
        (
            "by themselves, or: sudo storewarden setup",
            f"by themselves, or: {VENV}/storewarden setup",
        ),
        ("sudo env NIX_STORE_DIR=/x nix-nowhere -x", "env NIX_STORE_DIR=/x nix-nowhere -x"),
        ("sudo rm -r /x", "rm -r /x"),
        ("find /x | xargs sudo kill && sudo sh -c 'a'", "find /x | xargs kill && sh -c 'a'"),
        ("sudo -H NIX_REMOTE=local nix-collect-garbage", "NIX_REMOTE=local nix-collect-garbage"),
        ("With sudo the path stands there (sudo -i)", "With sudo the path stands there (sudo -i)"),
        ("To change it: sudo -i, then the same", "To change it: sudo -i, then the same"),
        ("by sudo of uid 7", "by sudo of uid 7"),
    ],
)
def test_root_types_no_sudo(written: str, typed: str, tmp_path: Path) -> None:
    assert alice(tmp_path, root=True).typed(written) == typed


def test_what_is_found_by_its_name_is_called_by_it_and_nothing_else_of_that_name(
    tmp_path: Path,
) -> None:
    own, both = tmp_path / "own" / "storewarden", "storewarden scan && sudo storewarden scan"
    put_program(own)
    caller = alice(tmp_path, program=str(own))
    put_program(tmp_path / "bin" / "storewarden")
    assert caller.typed(both) == f"{own} scan && sudo {own} scan", "another one is in the PATH"
    (tmp_path / "bin" / "storewarden").unlink()
    (tmp_path / "bin" / "storewarden").symlink_to(own)
    assert caller.typed(both) == f"storewarden scan && sudo {own} scan"
    put_program(tmp_path / "sudo" / "storewarden", f"#!{VENV}/python -I")
    assert caller.typed(both) == "storewarden scan && sudo storewarden scan"


def test_nix_is_typed_with_its_place_where_sudo_does_not_find_it(tmp_path: Path) -> None:
    put_program(tmp_path / "bin" / "nix-store")
    there = alice(tmp_path).typed("nix-store --gc && sudo nix-store --verify")
    assert there == f"nix-store --gc && sudo {tmp_path}/bin/nix-store --verify"
    put_program(tmp_path / "sudo" / "nix-store")
    assert alice(tmp_path).typed("sudo nix-store --verify") == "sudo nix-store --verify"


def test_how_it_was_started_says_how_it_is_typed(tmp_path: Path) -> None:
    put_program(tmp_path / "storewarden")
    beside, main = f"{tmp_path}/python", "/x/site-packages/storewarden/__main__.py"
    assert caller_of([f"{tmp_path}/storewarden"], beside, {}).program == f"{tmp_path}/storewarden"
    assert caller_of(["./storewarden"], beside, {}).program == os.path.abspath("storewarden")
    assert caller_of([main], beside, {}).program == f"{tmp_path}/storewarden"
    alone = replace(caller_of([main], "/nowhere/python", {}), root=False, path="", sudo_path="")
    assert alone.typed("sudo storewarden scan") == "sudo /nowhere/python -m storewarden scan"
    told = replace(caller_of([main], "/nowhere/python", {"PYTHONPATH": "/my src"}), root=False)
    assert told.module == "env PYTHONPATH='/my src' /nowhere/python -m storewarden"
    assert caller_of(["/usr/bin/pytest"], beside, {}) == Caller()
    assert caller_of(['/a"b/storewarden'], beside, {}) == Caller()
    assert caller_of([], beside, {}) == Caller()


def test_every_command_is_known_as_ours(tmp_path: Path) -> None:
    for name in COMMANDS:
        assert alice(tmp_path).typed(f"storewarden {name}") == f"{VENV}/storewarden {name}"
