# SPDX-License-Identifier: MIT
"""The service as a process, over a throwaway store and a stand-in for Nix."""

import json
import os
import socket
import subprocess
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1

import pytest

from command import PROGRAM, Desk, open_desk, run, strand_lock
from storewarden.auditlog import read_records, verify
from storewarden.throwaway import ThrowawayStore
from watcher import Service, configure, serving

QUICK = 'min-age = "0"'
MANY = 30_000


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    return open_desk(place, tmp_path)


def wait_until_gone(service: Service, name: str) -> None:
    service.wait_until(lambda: name not in service.desk.names(), f"{name} to go")


def test_what_lay_there_and_what_comes_later_is_removed_and_on_record(desk: Desk) -> None:
    first = strand_lock(desk.place, "first")
    with serving(desk, QUICK) as service:
        wait_until_gone(service, first)
        second = strand_lock(desk.place, "second")
        wait_until_gone(service, second)
        service.wait_until(lambda: service.status["removed"] == {"lock": 2}, "the count")
    assert (verify(desk.audit_log).records, verify(desk.audit_log).problem) == (4, "")
    intents = [one for one in read_records(desk.audit_log) if one["action"] == "intent"]
    assert all('"via": "by the service"' in json.dumps(one["requester"]) for one in intents)


def test_what_is_too_young_is_removed_when_it_is_of_age(desk: Desk) -> None:
    with serving(desk, 'min-age = "1s"') as service:
        name = strand_lock(desk.place, "young")
        service.wait_until(lambda: service.status["watched"] or name not in desk.names(), "a look")
        wait_until_gone(service, name)


def test_what_is_alive_stays_until_it_ends(desk: Desk) -> None:
    name = strand_lock(desk.place, "alive")
    desk.place.hold(desk.place.path(name))
    with serving(desk, QUICK, 'poll-interval = "1s"') as service:
        service.signal(SIGUSR1)
        service.wait_until(lambda: service.status["sweeps"] == 2, "a second sweep")
        assert name in desk.names()
        desk.place.close()
        wait_until_gone(service, name)


def test_what_is_only_reported_stays(desk: Desk) -> None:
    desk.place.add_file("foreign")
    name = strand_lock(desk.place, "lock")
    with serving(desk, QUICK, "kinds = []") as service:
        assert service.status["found"] == {"foreign": 1, "lock": 1}
        assert service.status["watched"] == 0
        assert {name, "foreign"} <= desk.names()


@pytest.mark.slow
def test_after_a_flood_that_was_lost_count_of_a_sweep_finds_all(desk: Desk) -> None:
    with serving(desk, QUICK, f"max-removals = {MANY}") as service:
        service.signal(SIGSTOP)
        for number in range(MANY):
            path = desk.place.path(f"flood-{number}")
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            os.unlink(path)
        left = {strand_lock(desk.place, f"left-{number}") for number in range(20)}
        desk.place.add_file("last")
        service.signal(SIGCONT)
        service.wait_until(lambda: left.isdisjoint(desk.names()), "all of it to go", 60)
        service.wait_until(lambda: service.status["found"] == {"foreign": 1}, "the find")
        service.wait_until(lambda: service.status["watched"] == 0, "the rest to be forgotten")
        assert service.status["overflows"] >= 1
        assert service.status["removed"] == {"lock": 20}


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_it_ends_well_when_told_to(desk: Desk, number: int) -> None:
    with serving(desk) as service:
        service.process.send_signal(number)
        assert service.process.wait(20) == 0
        assert [said["event"] for said in service.said] == ["watching", "ended"]


def test_a_signal_during_the_first_sweep_ends_it_too(desk: Desk) -> None:
    Path(desk.nix).write_text(f"#!/bin/sh\ntouch {desk.directory}/asked\nexec sleep 3\n")
    name = strand_lock(desk.place, "lock")
    words = [*PROGRAM, "watch", "--config", configure(desk, QUICK)]
    with subprocess.Popen(words) as process:
        while not os.path.exists(f"{desk.directory}/asked"):
            assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 0
    assert name in desk.names()


def test_a_second_one_is_refused_and_says_who_is_there(desk: Desk) -> None:
    with serving(desk) as service:
        done = run([*PROGRAM, "watch", "--config", configure(desk)])
        assert done.returncode == 4
        assert f"already watches, as process {service.process.pid}" in done.stderr


def test_after_a_kill_the_next_one_starts_at_once(desk: Desk) -> None:
    words = [*PROGRAM, "watch", "--config", configure(desk)]
    with subprocess.Popen(words) as process:
        while not os.path.exists(f"{desk.directory}/watch/status.json"):
            assert process.poll() is None
        process.send_signal(SIGKILL)
    with serving(desk) as service:
        pid = service.process.pid
        service.wait_until(lambda: service.status.get("pid") == pid, "its own status")


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('mood = "report"', "did you mean 'mode'"),
        ("mode = ", "config.toml: "),
        ('min-age = "soon"', "min-age: 'soon' is not a length of time"),
        ("max-removals = true", "max-removals: True is not a number"),
        ('kinds = ["old"]', "'old' is never removed"),
    ],
)
def test_a_wrong_configuration_is_refused_at_the_start_and_kept_out_at_a_reload(
    desk: Desk, lines: str, complaint: str
) -> None:
    refused = run([*PROGRAM, "watch", "--config", configure(desk, lines)])
    assert refused.returncode == 2
    assert complaint in refused.stderr
    with serving(desk, 'mode = "report"', QUICK) as service:
        name = strand_lock(desk.place, "lock")
        configure(desk, lines)
        service.signal(SIGHUP)
        service.wait_until(lambda: "configuration" in service.status["problems"], "the complaint")
        assert complaint in service.status["problems"]["configuration"]
        assert name in desk.names()
        configure(desk, QUICK)
        service.signal(SIGHUP)
        wait_until_gone(service, name)
        service.wait_until(lambda: service.status["problems"] == {}, "the end of the complaint")


def test_a_configuration_that_is_asked_for_must_be_there(desk: Desk) -> None:
    done = run([*PROGRAM, "watch", "--config", f"{desk.directory}/absent"])
    assert done.returncode == 2
    assert "cannot read the configuration" in done.stderr


def test_a_runtime_directory_that_cannot_be_made_is_told(desk: Desk) -> None:
    Path(f"{desk.directory}/watch").write_text("in the way")
    done = run([*PROGRAM, "watch", "--config", configure(desk)])
    assert done.returncode == 3
    assert "set runtime-dir" in done.stderr


def test_a_store_that_is_not_there_is_told_in_one_line(desk: Desk) -> None:
    os.rename(desk.place.store_dir.path, f"{desk.directory}/away")
    done = run([*PROGRAM, "watch", "--config", configure(desk)])
    assert done.returncode == 3
    assert done.stderr == (
        f"storewarden: error: cannot look at the store directory {desk.place.store_dir.path}:"
        " no such file or directory\n"
    )


def test_a_store_that_goes_away_and_comes_back_is_watched_again(desk: Desk) -> None:
    with serving(desk, QUICK, 'poll-interval = "1s"') as service:
        os.rename(desk.place.store_dir.path, f"{desk.directory}/away")
        service.wait_until(lambda: "store" in service.status["problems"], "the complaint")
        os.rename(f"{desk.directory}/away", desk.place.store_dir.path)
        wait_until_gone(service, strand_lock(desk.place, "lock"))
        service.wait_until(lambda: service.status["problems"] == {}, "the end of the complaint")


def test_a_store_that_cannot_be_read_is_a_problem_that_may_pass(desk: Desk) -> None:
    database = f"{desk.place.state_dir}/db/db.sqlite"
    os.rename(database, f"{database}.away")
    name = strand_lock(desk.place, "lock")
    with serving(desk, QUICK) as service:
        assert "there is no Nix database" in service.status["problems"]["store"]
        os.rename(f"{database}.away", database)
        service.signal(SIGUSR1)
        wait_until_gone(service, name)
        service.wait_until(lambda: service.status["problems"] == {}, "the end of the problem")


def test_systemd_hears_that_it_is_ready_and_well_and_ending(desk: Desk) -> None:
    place = f"{desk.directory}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(place)
        manager.settimeout(20)
        with serving(desk, NOTIFY_SOCKET=place, WATCHDOG_USEC="200000") as service:
            told = [manager.recv(4096).decode() for _ in range(10)]
            service.signal(SIGSTOP)
            manager.settimeout(0.5)
            with pytest.raises(TimeoutError):
                told += [manager.recv(4096).decode() for _ in range(100)]
            service.signal(SIGCONT)
            service.signal(SIGHUP)
            manager.settimeout(20)
            while "RELOADING" not in told[-1]:
                told.append(manager.recv(4096).decode())
            while told[-1] != "READY=1":
                told.append(manager.recv(4096).decode())
        while "STOPPING" not in told[-1]:
            told.append(manager.recv(4096).decode())
    assert told.index("STATUS=0 found; 0 watched; 0 removed") < told.index("READY=1")
    assert told.count("WATCHDOG=1") > 5


def test_help_names_its_signals() -> None:
    done = run([*PROGRAM, "watch", "--help"])
    assert all(name in done.stdout for name in ("SIGTERM", "SIGHUP", "SIGUSR1"))
