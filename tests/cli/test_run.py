# SPDX-License-Identifier: MIT
"""`storewarden run` over a throwaway store: what is done about a failure, and how often."""

import os
import subprocess
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, SECONDS, Desk
from storewarden.audit_reading import verify
from storewarden.cli.run import are_gone, blamed, names_in
from storewarden.explain.buildlog import BuildLog, Reading
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore

root = pytest.mark.skipif(not ROOT, reason="only root can make what belongs to a build user")
BUILD = """\
echo run >> "$1"
if [ -e "$2" ]; then echo "mkdir: cannot create directory '$2/x': Permission denied" >&2; exit 7; fi
cat
exit ${3:-0}
"""


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
def test_what_the_command_itself_made_is_said_to_be_its_builder_s(desk: Desk) -> None:
    path = stranded(desk)
    Path(path).rename(f"{desk.directory}/aside")
    made = (
        f'mkdir "{path}"; echo "cp: cannot create regular file \'{path}/x\': Permission denied" >&2'
    )
    done = subprocess.run(
        [*PROGRAM, "run", *desk.surroundings(), "--", "sh", "-c", f"{made}; exit 7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 7
    assert f"nothing lay at {path} when this began" in " ".join(done.stderr.split())
    assert "chmod -R u+w" in done.stderr
    assert "another build user" not in done.stderr


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


def log_of(place: ThrowawayStore, *lines: str) -> Reading:
    log = BuildLog(place.store_dir)
    log.feed("\n".join(lines).encode())
    return log.reading()


def refused(place: ThrowawayStore, path: StorePath) -> str:
    full = place.store_dir.join(path.base_name)
    return f"mkdir: cannot create directory '{full}/x': Permission denied"


def told(place: ThrowawayStore, reading: Reading, before: Collection[str]) -> list[str]:
    return [one.base_name for one in blamed(place.as_store(), reading, before)]


def test_debris_that_the_log_names_and_that_lay_there_before_is_blamed(
    place: ThrowawayStore,
) -> None:
    path = place.strand(place.add_derivation("hello"))
    before = names_in(place.store_dir)
    assert told(place, log_of(place, refused(place, path)), before) == [path.base_name]


def test_what_came_later_is_not(place: ThrowawayStore) -> None:
    before = names_in(place.store_dir)
    path = place.strand(place.add_derivation("hello"))
    assert told(place, log_of(place, refused(place, path)), before) == []


def test_nor_is_a_valid_path_or_one_that_the_log_does_not_name(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("other"))
    valid = place.add_valid("hello")
    before = names_in(place.store_dir)
    assert told(place, log_of(place, refused(place, valid)), before) == []


def test_nor_is_one_in_a_failure_of_another_kind(place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("hello"))
    full = place.store_dir.join(path.base_name)
    before = names_in(place.store_dir)
    reading = log_of(place, f"error: path '{full}' is not valid")
    assert reading.seen
    assert told(place, reading, before) == []


def test_they_are_gone_when_somebody_else_has_removed_them(place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("hello"))
    store = place.as_store()
    found = blamed(store, log_of(place, refused(place, path)), names_in(place.store_dir))
    assert not are_gone(store, found, 0)
    full = place.path(path.base_name)
    mover = threading.Timer(0.3, os.rename, (full, f"{place.store_dir.path}/../elsewhere"))
    began = time.monotonic()
    mover.start()
    assert are_gone(store, found, 30)
    mover.join()
    assert time.monotonic() - began < 10
