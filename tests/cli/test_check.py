# SPDX-License-Identifier: MIT
"""`storewarden check`: its one line, its exit code, and its numbers, in each state."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cli.test_status import WELL
from command import PROGRAM, Desk, report, run, strand_lock
from stand_in import write_program
from storewarden.cli.check import State, is_missed
from storewarden.daemon.starting import Starting, how_started
from storewarden.daemon.status import ServiceStatus, held, write_status
from storewarden.readable import SET_UP
from sweeps import needs_lock_table
from watcher import configure, serving

CODES = {
    State.OK: (0, 0),
    State.DEBRIS: (1, 1),
    State.DOUBTFUL: (5, 1),
    State.DOWN: (4, 2),
    State.STUCK: (5, 2),
}
"""Exit codes, its own and Nagios'."""
_no_service = pytest.mark.skipif(
    bool(how_started().unit), reason="storewarden is set up on this machine"
)


def check(desk: Desk, *words: str) -> list[str]:
    """The command, for that store and a service in the desk's directory."""
    config = f"{desk.directory}/config.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'runtime-dir = "{desk.directory}/run"\n')
    store = ["--store-dir", desk.place.store_dir.path, "--state-dir", desk.place.state_dir]
    store += ["--config", config, "--nix", desk.nix, "--min-age", "0"]
    return [*PROGRAM, "check", *store, *words]


def assert_state(desk: Desk, state: State, says: str) -> None:
    """It is told in one line, as JSON and to Nagios, each with its exit code."""
    plain, nagios = run(check(desk)), run(check(desk, "--nagios"))
    told = report(run(check(desk, "--json")))
    assert (plain.returncode, nagios.returncode) == CODES[state], plain.stdout
    assert told["state"] == state
    assert says in plain.stdout
    assert told["text"] in plain.stdout
    level = plain.stdout.partition(":")[0]
    for done in (plain, nagios):
        assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    text, bar, numbers = nagios.stdout.partition(" | ")
    assert (text, bar) == (f"STOREWARDEN {level} - {told['text']}", " | ")
    values = dict(one.split("=") for one in numbers.split())
    assert values["debris"].startswith(
        f"{told['summary']['removable'] + told['summary']['candidate']};"
    )
    assert values["service"].startswith(f"{int(told['service']['running'])};")


@contextmanager
def service(desk: Desk, status: ServiceStatus) -> Iterator[None]:
    """While a service runs that says so."""
    with held(f"{desk.directory}/run"):
        write_status(f"{desk.directory}/run", replace(status, updated=time.time()))
        yield


@_no_service
def test_where_nothing_lies_and_no_service_is_to_run_all_is_well(desk: Desk) -> None:
    assert_state(desk, State.OK, f"OK: nothing needs attention in {desk.place.store_dir.path}\n")


@_no_service
@needs_lock_table
def test_what_is_alive_needs_no_attention(desk: Desk) -> None:
    desk.place.hold(desk.place.path(strand_lock(desk.place, "live")))
    desk.place.add_file(".DS_Store")
    assert_state(desk, State.OK, "; 1 kept; 1 only reported\n")


@_no_service
def test_debris_that_can_go_does(desk: Desk) -> None:
    strand_lock(desk.place, "dead")
    assert_state(desk, State.DEBRIS, "WARNING: 1 lock file ")


def test_what_a_service_is_about_to_remove_needs_nobody(desk: Desk) -> None:
    strand_lock(desk.place, "dead")
    with service(desk, WELL):
        assert_state(desk, State.OK, "nothing needs attention")
    with service(desk, replace(WELL, mode="report")):
        assert_state(desk, State.DEBRIS, "1 lock file ")


def test_a_service_that_left_a_status_and_does_not_run_is_down(desk: Desk) -> None:
    with service(desk, WELL):
        pass
    assert_state(desk, State.DOWN, "CRITICAL: the service does not run")


@_no_service
def test_a_service_that_was_run_by_hand_and_told_to_end_is_missed_by_nobody(desk: Desk) -> None:
    with serving(desk):
        pass
    told = report(run([*check(desk, "--json"), "--config", configure(desk)]))
    assert (told["state"], told["service"]["expected"]) == (State.OK, False)


def test_a_service_that_is_set_up_is_missed_also_where_it_was_told_to_end() -> None:
    by_hand, set_up = Starting(SET_UP), Starting(SET_UP, unit="storewarden.service")
    for status in (None, WELL, replace(WELL, ended=True)):
        assert is_missed(status, set_up)
        assert is_missed(status, by_hand) is (status is WELL)


def test_a_path_that_may_hold_stale_files_needs_somebody(desk: Desk) -> None:
    with service(desk, replace(WELL, doubtful_count=2)):
        assert_state(desk, State.DOUBTFUL, "WARNING: 2 valid, but doubtful")


def test_what_is_stuck_or_wrong_counts_most(desk: Desk) -> None:
    strand_lock(desk.place, "dead")
    with service(desk, replace(WELL, stuck_count=3, mode="report")):
        assert_state(desk, State.STUCK, "CRITICAL: 3 stuck; 1 lock file ")
    with service(desk, replace(WELL, problems={"helper": "it | is gone"})):
        done = run(check(desk, "--nagios"))
        assert done.returncode == 2
        assert done.stdout.startswith("STOREWARDEN CRITICAL - problem (helper): it / is gone | ")


def test_where_it_cannot_be_told_that_is_said(desk: Desk) -> None:
    strand_lock(desk.place, "dead")
    write_program(desk.nix, "exit 1\n")
    plain, nagios = run(check(desk)), run(check(desk, "--nagios"))
    assert (plain.returncode, nagios.returncode) == (3, 3)
    assert plain.stdout.startswith("UNKNOWN: Nix could not be asked")
    absent = run([*check(desk, "--nagios"), "--store-dir", "/absent/store"])
    assert (absent.returncode, absent.stdout.count("\n"), absent.stderr) == (3, 1, "")
    assert absent.stdout.startswith("STOREWARDEN UNKNOWN - ")
    assert run([*check(desk), "--store-dir", "/absent/store"]).returncode == 3


@_no_service
def test_where_not_all_can_be_seen_it_does_not_say_that_all_is_well_without_that(
    desk: Desk,
) -> None:
    os.rmdir(f"{desk.place.state_dir}/userpool2")  # and so there are no build users to be told
    nobody = ["--build-group", "no-such-group"]
    plain, nagios = run([*check(desk), *nobody]), run([*check(desk, "--nagios"), *nobody])
    assert (plain.returncode, nagios.returncode) == (0, 0)
    assert "; not all can be seen here\n" in plain.stdout
    assert "; not all can be seen here | " in nagios.stdout
    assert "there are no build users here" in " ".join(plain.stderr.split())
    (note,) = report(run([*check(desk, "--json"), *nobody]))["notes"]
    assert "there are no build users here" in note
    looked = run([*desk.scan("--dry-run"), *nobody])
    assert looked.stdout.endswith(", as far as can be seen here\n")
