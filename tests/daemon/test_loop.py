# SPDX-License-Identifier: MIT
"""The service: as a process over a throwaway store and a stand-in for Nix, and its steps alone."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from command import PROGRAM, Desk, run, strand_lock
from daemon.test_metrics import samples
from disks import debugfs, needs_a_disk, of_a_changed_disk
from helper.bench import log_of, names
from helper.bench import run as run_engine
from helper.child import needs_root
from helper.trees import left_private, write
from storewarden.audit import Requester
from storewarden.audit_reading import read_records, verify
from storewarden.cli.status import status_lines
from storewarden.client import remove_through
from storewarden.config import Config, Mode
from storewarden.daemon.agenda import Suspect
from storewarden.daemon.loop import Loop, _comes
from storewarden.daemon.metrics import exposition
from storewarden.daemon.starting import Starting
from storewarden.daemon.watch import Changed, Signalled, inbox
from storewarden.helper.engine import remove
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.readable import SET_UP
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath, output_lock, path_lock, redirect_path
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table
from tables import know_output
from watcher import Service, configure, serving

QUICK = 'min-age = "0"'
MANY = 30_000


def wait_until_gone(service: Service, name: str) -> None:
    service.wait_until(lambda: name not in service.desk.names(), f"{name} to go")


def test_what_lay_there_and_what_comes_later_is_removed_and_on_record(desk: Desk) -> None:
    first = strand_lock(desk.place, "first")
    with serving(desk, QUICK) as service:
        wait_until_gone(service, first)
        second = strand_lock(desk.place, "second")
        wait_until_gone(service, second)
        service.wait_until(lambda: service.status["removed"] == {"lock": 2}, "the count")
        assert [one["name"] for one in service.status["recent"]] == [first, second]
        assert sum(service.status["waited"]) == 2
        assert service.status["waited_seconds"] > 0
        assert service.status["registered_bytes"] == 0, "narSize is registered of nothing here"
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


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify can lose count")
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
        assert service.status["ended"]


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


# One step of it, in this process


@contextmanager
def loop_over(place: ThrowawayStore, min_age: float = 0.0) -> Iterator[Loop]:
    """A service that has not begun, over that store; it removes nothing."""
    config, log = Config(min_age=min_age), structlog.get_logger()
    with inbox() as events:
        yield Loop(config, place.as_store(min_age), log, events, lambda _: None)


@pytest.fixture
def loop(place: ThrowawayStore) -> Iterator[Loop]:
    with loop_over(place) as one:
        yield one


def strand(place: ThrowawayStore) -> str:
    return place.strand(place.add_derivation("ahead")).base_name


def set_clock_back(image: Path, ahead: str) -> None:
    """As if it had changed in 2036."""
    debugfs(image, f"set_inode_field /nix/store/{ahead} ctime @0x7c25b080")


def sweep_twice(place: ThrowawayStore, ahead: str) -> list[tuple[str, ...]]:
    """Why it, and one that was stranded just now, are told as stuck."""
    young = place.strand(place.add_derivation("young")).base_name
    with loop_over(place, min_age=3600.0) as loop:
        for _ in range(2):
            loop._look_at_all()
    return [loop.agenda.suspects[name].reasons for name in (ahead, young)]


def test_a_helper_that_starts_at_the_same_time_is_waited_for(tmp_path: Path) -> None:
    """As launchd starts both; where none was ever set up there is no directory either."""
    began, place = time.monotonic(), tmp_path / "ours"
    assert not _comes(f"{place}/helper.sock")
    assert time.monotonic() - began < 1
    place.mkdir()
    starts = threading.Timer(0.3, (place / "helper.sock").touch)
    starts.start()
    assert _comes(f"{place}/helper.sock")
    starts.join()


@needs_a_disk
def test_what_changed_before_the_clock_was_set_back_is_told_as_stuck(tmp_path: Path) -> None:
    [[reason], plain] = of_a_changed_disk(tmp_path, strand, set_clock_back, sweep_twice)
    assert "by the clock in 2036" in reason
    assert plain == []


def due_after(loop: Loop, lock: str) -> set[str]:
    now = time.monotonic()
    loop.agenda.release([lock], now, loop.store.store_dir)
    return set(loop.agenda.due(now + 0.2))


def test_its_scratch_path_is_told_by_the_name_of_the_lock(
    place: ThrowawayStore, loop: Loop
) -> None:
    derivation = place.add_derivation("x")
    path, lock = place.strand(derivation), output_lock(derivation, "out")
    later = time.monotonic() + 1000
    for name in (path.base_name, lock, "other"):
        loop.agenda.suspects[name] = Suspect(name, later)
    assert due_after(loop, lock) == {path.base_name, lock}
    assert due_after(loop, "no lock") == {path.base_name, lock}


@needs_lock_table
def test_what_else_it_covers_was_told_by_the_look_before(place: ThrowawayStore, loop: Loop) -> None:
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    know_output(place, derivation, "out", valid)
    path, lock = redirect_path(derivation, valid, place.store_dir), path_lock(valid)
    place.add_output(path)
    place.add_lock(lock)
    place.hold(place.path(lock))
    loop._look_at_all()
    assert path.base_name in loop.agenda.suspects, "it is alive, and looked at again"
    assert loop.agenda.due(time.monotonic() + 0.2) == []
    assert path.base_name in due_after(loop, lock)


def test_what_was_taken_to_remove_something_wakes_nobody(place: ThrowawayStore, loop: Loop) -> None:
    derivation = place.add_derivation("x")
    path, lock = place.strand(derivation), output_lock(derivation, "out")
    asked: list[str] = []

    def refuse(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        asked.extend(request.base_name for request in requests)
        yield from (Outcome(one.base_name, Status.KEPT, ("it lives",)) for one in requests)

    loop.remove = refuse
    loop._look_at_all()
    assert path.base_name in asked
    assert due_after(loop, lock) == set(), "the helper has closed it: it is what was just refused"
    loop.agenda.touched.clear()
    assert path.base_name in due_after(loop, lock)


@pytest.mark.parametrize("settings", [{"mode": Mode.REPORT}, {"kinds": frozenset()}])
def test_where_nothing_is_to_go_nobody_is_asked_to_remove(
    place: ThrowawayStore, loop: Loop, settings: dict[str, Any]
) -> None:
    place.strand(place.add_derivation("x"))
    asked: list[Sequence[RemoveRequest]] = []

    def remover(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        asked.append(requests)
        return iter(())

    loop.config, loop.remove = replace(loop.config, **settings), remover
    loop._look_at_all()
    loop.agenda.notice(loop.found, time.monotonic(), loop.store.store_dir)
    loop._look_again(set(loop.found))
    assert (len(loop.found), asked) == (2, [])


@needs_root
@needs_lock_table
@pytest.mark.parametrize("kinds", [{EntryKind.OUTPUT}, {EntryKind.LOCK}])
def test_what_was_let_go_is_put_before_the_helper_before_anything_else(
    place: ThrowawayStore, loop: Loop, kinds: set[EntryKind]
) -> None:
    derivation = place.add_derivation("x")
    lock = output_lock(derivation, "out")
    asked: list[list[str]] = []

    def remover(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        asked.append([request.base_name for request in requests])
        yield from (Outcome(name, Status.REMOVED, ()) for name in asked[-1])

    loop.config, loop.remove = replace(loop.config, kinds=frozenset(kinds)), remover
    path = place.strand(derivation).base_name
    place.hold(place.path(lock))
    loop.agenda.notice([lock, path], time.monotonic(), loop.store.store_dir)
    loop._look_again({lock, path})
    assert os.getpid() in loop.inbox.minded
    assert asked == []
    place.close()
    loop.agenda.release([lock], time.monotonic(), loop.store.store_dir)
    loop._look_again({lock, path})
    if EntryKind.OUTPUT in kinds:
        assert asked[0] == [path]
    else:
        assert all(path not in names for names in asked)


def test_nothing_becomes_a_suspect_by_that(place: ThrowawayStore, loop: Loop) -> None:
    assert due_after(loop, path_lock(place.add_valid("x"))) == set()
    assert loop.agenda.suspects == {}


def test_a_helper_that_is_silent_is_left_alone_as_soon_as_it_is_told_to_end(
    tmp_path: Path, loop: Loop
) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/helper")
        silent.listen()
        loop.remove = remove_through(f"{tmp_path}/helper", loop._leave_if_ended)
        what = (Changed("x"), Signalled(SIGTERM))
        later = threading.Timer(0.2, loop.inbox.post, what)
        later.start()
        loop._finish()
        later.join()
    assert [*loop.changed] == ["x"], "it heeds what happens meanwhile"
    assert (loop.ended, loop.tally.problems) == (True, {})


def test_a_bug_in_what_removes_is_not_taken_for_a_helper_that_cannot_be_reached(loop: Loop) -> None:
    def stumble(_: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        raise ZeroDivisionError

    loop.remove = stumble
    with pytest.raises(ZeroDivisionError):
        loop._finish()


def use_engine(loop: Loop, place: ThrowawayStore) -> None:
    """Have it remove with an engine of its own."""

    def remover(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        requester = Requester(os.getuid(), os.getpid(), "test")
        return remove(loop.store, requests, audit_log=log_of(place), requester=requester)

    loop.remove = remover


def exchange(place: ThrowawayStore, scratch: StorePath) -> None:
    """Have what nobody looked at taken instead of it, and another made in its place."""
    path = place.path(scratch.base_name)

    def meanwhile(step: str) -> None:
        if step == "unchanged":
            os.rename(path, f"{place.state_dir}/away")
            os.mkdir(path)
            write(f"{path}/half of what a live build wrote")
            os.chown(path, place.builder + 1, place.builder)
        elif step == "taken":
            os.mkdir(path)

    (outcome,) = run_engine(place, scratch.base_name, checkpoint=meanwhile)
    assert outcome.status == "failed"


def problem_metric(loop: Loop) -> float:
    """What the metric says."""
    return samples(exposition(loop.status()))["storewarden_problem", "put-back"]


@needs_root
def test_what_cannot_be_put_back_is_told_until_it_is_settled(
    place: ThrowawayStore, loop: Loop
) -> None:
    derivation = place.add_derivation("x")
    scratch = place.strand(derivation)
    exchange(place, scratch)
    use_engine(loop, place)
    (private,) = left_private(place)
    with holding(place.path(output_lock(derivation, "out"))), capture_logs() as logged:
        for _ in range(3):
            loop._finish()
        text = loop.tally.problems["put-back"]
        assert scratch.base_name in text
        assert private in text
        # Once, and not at each try; and it is tried again soon.
        assert [one["log_level"] for one in logged if one.get("where") == "put-back"] == ["error"]
        assert 0 < loop.agenda.finish.waited <= 30
        assert problem_metric(loop) == 1
        status = loop.status()
        assert "put-back" in status.line()
        lines = "\n".join(
            status_lines(status, status.updated, running=True, starting=Starting(SET_UP))
        )
        assert "PROBLEM (put-back)" in lines
        assert "storewarden audit log" in lines
        assert not loop.agenda.suspects
    loop._finish()
    assert "put-back" not in loop.tally.problems
    assert problem_metric(loop) == 0
    assert loop.agenda.finish.due == float("inf")
    assert not left_private(place)
    assert scratch.base_name in names(place)
