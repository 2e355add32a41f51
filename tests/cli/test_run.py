# SPDX-License-Identifier: MIT
"""`storewarden run` over a throwaway store: what is done about a failure, and how often."""

import os
import subprocess
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, SECONDS, Desk, open_desk
from storewarden.auditlog import verify
from storewarden.throwaway import ThrowawayStore

root = pytest.mark.skipif(not ROOT, reason="only root can make what belongs to a build user")
BUILD = """\
echo run >> "$1"
if [ -e "$2" ]; then echo "mkdir: cannot create directory '$2/x': Permission denied" >&2; exit 7; fi
cat
exit ${3:-0}
"""


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    return open_desk(place, tmp_path)


def build(
    desk: Desk, path: str, second: str = "0", stdin: int = subprocess.DEVNULL
) -> "subprocess.CompletedProcess[str]":
    """A build that is refused where `path` lies, and else copies its input and ends as told."""
    command = ["sh", "-c", BUILD, "sh", f"{desk.directory}/runs", path, second]
    return subprocess.run(
        [*PROGRAM, "run", *desk.surroundings(), "--", *command],
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def runs(desk: Desk) -> int:
    return Path(desk.directory, "runs").read_text(encoding="ascii").count("run")


def stranded(desk: Desk) -> str:
    return desk.place.path(desk.place.strand(desk.place.add_derivation("hello")).base_name)


@root
def test_what_is_in_the_way_and_dead_is_removed_and_the_command_run_once_more(desk: Desk) -> None:
    path = stranded(desk)
    done = build(desk, path)
    assert (done.returncode, done.stdout, runs(desk)) == (0, "", 2), done.stderr
    assert f"removed: {path}" in done.stderr
    assert not os.path.lexists(path)
    assert verify(desk.audit_log).records == 2


@root
def test_the_second_end_counts_and_there_is_no_third(desk: Desk) -> None:
    done = build(desk, stranded(desk), "9")
    assert (done.returncode, runs(desk)) == (9, 2)
    assert "nor of any known failure; it is not run again" in done.stderr


@root
def test_an_input_that_is_a_file_is_given_again_from_where_it_stood(desk: Desk) -> None:
    given = Path(desk.directory, "input")
    given.write_text("first\nsecond\n", encoding="ascii")
    descriptor = os.open(given, os.O_RDONLY)
    os.lseek(descriptor, 6, os.SEEK_SET)
    done = build(desk, stranded(desk), stdin=descriptor)
    os.close(descriptor)
    assert (done.returncode, done.stdout, runs(desk)) == (0, "second\n", 2)


@root
def test_with_an_input_that_cannot_be_given_again_it_is_removed_and_no_more(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    path = stranded(desk)
    done = build(desk, path, stdin=reading)
    os.close(reading)
    assert (done.returncode, runs(desk), os.path.lexists(path)) == (7, 1, False)
    assert "run it again yourself" in done.stderr


@root
def test_a_held_lock_keeps_it_and_the_reason_is_told(desk: Desk) -> None:
    derivation = desk.place.add_derivation("hello")
    path = desk.place.path(desk.place.strand(derivation).base_name)
    desk.place.hold(desk.place.path(f"{derivation.base_name}.out.lock"))
    done = build(desk, path)
    assert (done.returncode, runs(desk), os.path.lexists(path)) == (7, 1, True)
    assert "it is kept: " in done.stderr
    assert "1 known failure" in done.stderr


def test_without_a_store_the_command_runs_all_the_same(tmp_path: Path) -> None:
    nowhere = ["--store-dir", f"{tmp_path}/nix/store", "--state-dir", f"{tmp_path}/nix/var"]
    command = [*PROGRAM, "run", *nowhere, "--", "sh", "-c", "echo out; exit 4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (4, "out\n")
    assert "it is not run again" in done.stderr
