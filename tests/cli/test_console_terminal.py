# SPDX-License-Identifier: MIT
"""What people see: at terminals of several widths, in a pipe, and where colours are not wanted."""

import os
import re
import sys
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, open_desk, run, strand_lock
from storewarden.store.paths import output_lock
from storewarden.throwaway import ThrowawayStore
from terminal import assert_only_basic_colours, at, screen

WIDTHS = (40, 80, 200)
WEDGED = f"mkdir: cannot create directory '/nix/store/{'0' * 32}-a': Permission denied\n"
EVIL = "evil\x1b[32mremoved\x1b[0m\x1b]0;owned\x07"


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with a live build, something dead, and a name that plays tricks."""
    live = place.add_derivation("live-1.0")
    place.strand(live)
    place.hold(place.path(output_lock(live, "out")))
    strand_lock(place, "dead")
    place.add_file(EVIL)
    (tmp_path / "wedged.log").write_text(WEDGED)
    return open_desk(place, tmp_path)


def commands(desk: Desk) -> dict[str, list[str]]:
    """Every command that shows something of a store, and an error."""
    store = ["--config", os.devnull]
    store += ["--store-dir", desk.place.store_dir.path, "--state-dir", desk.place.state_dir]
    store += ["--nix", desk.nix, "--min-age", "0"]
    evil = desk.place.path(EVIL)
    audit = ["--audit-log", desk.audit_log]
    return {
        "scan": desk.scan("--dry-run"),
        "explain": [*PROGRAM, "explain", *store, evil, *sorted(map(desk.place.path, desk.names()))],
        "log": [*PROGRAM, "explain", "--log", f"{desk.directory}/wedged.log"],
        "locks": [*PROGRAM, "locks", "--all", *store],
        "status": [*PROGRAM, "status", "--config", "/dev/null"],
        "remove": desk.scan("--yes"),
        "history": [*PROGRAM, "audit", "log", "-v", *audit],
        "show": [*PROGRAM, "audit", "show", *audit],
        "check": [*PROGRAM, "check", *store],
        "verify": [*PROGRAM, "audit", "verify", *audit],
        "error": [*PROGRAM, "audit", "verify", "--audit-log", "/absent\x1b[31m"],
        "wrong": [*PROGRAM, "scan", "--\x1b[31m"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("columns", WIDTHS)
def test_every_command_has_basic_colours_alone_and_nothing_crashes(
    desk: Desk, columns: int
) -> None:
    coloured = set()
    for name, command in commands(desk).items():
        shown = at(columns, command)
        assert shown.code in {0, 1, 2, 3, 4}, (name, shown)
        for text in (shown.out, shown.err):
            assert_only_basic_colours(text)
            coloured |= {name} if "\x1b[" in text else set()
    assert coloured == commands(desk).keys()


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_where_colours_are_not_wanted_the_same_is_shown_without_them(
    desk: Desk, variables: dict[str, str]
) -> None:
    for name, command in commands(desk).items():
        if name == "remove":
            continue  # what it did cannot be done again
        coloured, plain = at(80, command), at(80, command, variables=variables)
        for one, other in ((coloured.out, plain.out), (coloured.err, plain.err)):
            assert "\x1b" not in other, name
            # Where the machine is slow one may have told for a while what takes so long.
            assert _timeless(screen(one)) == _timeless(screen(other)), name


def _timeless(lines: list[str]) -> str:
    """The same without what differs from one run to the next."""
    text = "\n".join(lines)
    text = re.sub(r"process(es)? \d+[^:]*(: has it in its environment \(\w+\))?", "process", text)
    text = re.sub(r"\d+ process(es)? could not", "processes could not", text)
    return re.sub(r"\d+ (s|min)\b", "1 s", text)


def test_each_stream_is_decided_for_itself(desk: Desk) -> None:
    command = commands(desk)["scan"]
    to_file = at(80, [*command, "--store-dir", "/absent"], streams=("err",))
    assert "\x1b[1;91merror:" in to_file.err
    out, err = at(80, command, streams=("out",)), at(80, command, streams=("err",))
    assert ("\x1b" in out.out, "\x1b" in out.err) == (True, False)
    assert "\x1b" not in err.out
    forced = at(80, command, streams=(), variables={"CLICOLOR_FORCE": "1"})
    assert "\x1b[1m" in forced.out


def test_a_log_passes_through_as_it_is_and_only_its_explanation_has_colours() -> None:
    log = f"\x1b[31;1m{WEDGED}"
    shown = at(80, [*PROGRAM, "explain", "-"], streams=("err",), text=log.encode())
    assert (shown.code, shown.out) == (0, log)
    assert_only_basic_colours(shown.err)
    assert "\x1b[1;91mA builder was refused access to a path in the store\x1b[0m" in shown.err


def test_a_name_that_a_builder_chose_has_no_colour_of_its_own(desk: Desk) -> None:
    shown = at(80, commands(desk)["scan"])
    name = re.escape(desk.place.path(r"evil\x1b[32mremoved\x1b[0m\x1b]0;owned\x07"))
    assert re.search(rf"^\x1b\[1m{name}\x1b\[0m$", shown.out, re.MULTILINE)


def test_a_colour_is_never_all_that_says_so(desk: Desk) -> None:
    shown = at(80, commands(desk)["scan"])
    assert "\x1b[95mkept\x1b[0m: " in shown.out or sys.platform == "darwin"
    assert "\x1b[32m" in shown.out
    if ROOT:
        done = at(80, [*commands(desk)["remove"], "--verbose"])
        assert re.search(r"\x1b\[32mremoved\x1b\[0m:\s", done.out)
        assert done.lines[-1] == "1 removed (0 B freed)"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 200])
def test_lines_fit_the_terminal_unless_a_path_or_a_command_alone_is_longer(
    desk: Desk, columns: int
) -> None:
    lines = [line for command in commands(desk).values() for line in at(columns, command).lines]
    for line in lines:
        quoted = line.startswith("    line 1: ")
        alone = "/" in line and (len(line.split()) <= 8 or line.split()[0] in {"sudo", "env"})
        assert len(line) <= columns or quoted or alone, line
    assert any(80 < len(line) <= 200 for line in lines) or columns == 80


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_path_stays_whole_at_every_width(desk: Desk, columns: int) -> None:
    lines = at(columns, commands(desk)["scan"]).lines
    found = [line for line in lines if line.startswith("/")]
    assert set(found) == {
        desk.place.path(name)
        for name in (r"evil\x1b[32mremoved\x1b[0m\x1b]0;owned\x07", *desk.names())
        if name not in {EVIL, ".links"} and "valid" not in name and not name.endswith(".drv")
    }


def test_locks_are_a_table_on_a_wide_terminal_and_blocks_elsewhere(desk: Desk) -> None:
    command = commands(desk)["locks"]
    narrow, wide = at(80, command), at(250, command)
    assert [line for line in narrow.lines if line.startswith("    for ")]
    assert not [line for line in wide.lines if line.startswith("    for ")]
    assert narrow.lines[-1] == wide.lines[-1]
    held = [line for line in wide.lines if line.startswith(("held", "unknown", "stale"))]
    begins = {re.match(r"\S+ +\S+ +", line).end() for line in held}  # type: ignore[union-attr]
    assert len(begins) == 1, "its columns stand below each other"


def test_in_a_pipe_what_is_read_by_line_is_one_line(desk: Desk) -> None:
    run(commands(desk)["remove"])
    records = run(commands(desk)["show"], COLUMNS="40").stdout.splitlines()
    assert all(re.match(r" +\d+  \S+Z  (intent|result) ", line) for line in records)
    error = run(commands(desk)["error"], COLUMNS="40").stderr
    assert error.count("\n") == 1
    assert error.startswith(r"storewarden: error: there is no audit log /absent\x1b[31m")
