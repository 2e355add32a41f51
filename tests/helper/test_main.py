# SPDX-License-Identifier: MIT
"""What the helper does for whom."""

import fcntl
import os
import signal
import socket
import stat
import termios
import time

import pytest

from helper.bench import audit_is_whole, log_of, names, picture, records
from helper.serving import (
    CLIENT,
    ROOT,
    Helper,
    command,
    line_for,
    serving,
    socket_of,
    stale_lock,
    started,
)
from stand_in import write_answering_nix
from storewarden.throwaway import ThrowawayStore
from sweeps import holding


def test_an_allowed_user_has_debris_removed(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    before = names(near)
    with serving(near) as helper:
        removed, end = helper.ask(line_for(near, lock))
    assert (removed["base_name"], removed["status"]) == (lock, "removed")
    assert end == {"v": 1, "end": True, "error": ""}
    assert names(near) == before - {lock}
    intent, _ = records(near)
    requester = intent["requester"]
    assert isinstance(requester, dict)
    assert (requester["uid"], requester["via"]) == (CLIENT, "socket")
    assert requester["pid"] > 0
    assert audit_is_whole(near)


@pytest.mark.skipif(not ROOT, reason="only root can make what belongs to a build user")
def test_an_allowed_user_has_a_stranded_output_removed(near: ThrowawayStore) -> None:
    path = near.strand(near.add_derivation("x")).base_name
    with serving(near) as helper:
        taken, removed, end = helper.ask(line_for(near, path))
    assert (taken["status"], removed["status"], end["error"]) == ("taken", "removed", "")
    assert path not in names(near)
    assert audit_is_whole(near)


def test_whoever_is_not_allowed_is_told_so_and_nothing_happens(near: ThrowawayStore) -> None:
    asked = line_for(near, stale_lock(near))
    before = picture(near.store_dir.path)
    others = (CLIENT + 1, CLIENT + 2)
    with serving(near, allow=others) as helper:
        for uid in {CLIENT, os.geteuid()}:
            (end,) = helper.ask(asked, uid=uid)
            assert end["error"].startswith(f"uid {uid} may not ask this helper")
            assert end["code"] == "not-allowed"
    assert picture(near.store_dir.path) == before
    assert not os.path.exists(f"{os.path.dirname(socket_of(near))}/../log/audit.jsonl")


def test_the_socket_of_one_user_is_that_users_alone(near: ThrowawayStore) -> None:
    with serving(near) as helper:
        found = os.stat(helper.socket)
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, CLIENT)
    with serving(near, allow=(CLIENT, CLIENT + 1)) as helper:
        assert stat.S_IMODE(os.stat(helper.socket).st_mode) == 0o666
        assert helper.ask(line_for(near, stale_lock(near)))[-1]["error"] == ""


def test_the_helpers_own_minimum_age_counts(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near, "--min-age", "3600") as helper:
        outcome, _ = helper.ask(line_for(near, lock))
    assert outcome["status"] == "kept"
    assert "changed too recently" in outcome["reasons"][0]
    assert lock in names(near)


def test_what_is_younger_than_two_seconds_stays_unless_something_else_is_said(
    near: ThrowawayStore,
) -> None:
    words = command(near)
    at = words.index("--min-age")
    lock = stale_lock(near)
    with started([*words[:at], *words[at + 2 :]]) as process:
        os.utime(near.path(lock))
        outcome, _ = Helper(process, socket_of(near)).ask(line_for(near, lock))
    assert outcome["status"] == "kept"
    assert "waiting until 2 s old" in outcome["reasons"][0]


def test_its_log_is_its_users_alone_whatever_the_umask(near: ThrowawayStore) -> None:
    with started(command(near), umask=0) as process:
        Helper(process, socket_of(near)).ask(line_for(near, stale_lock(near)))
    assert stat.S_IMODE(os.stat(log_of(near)).st_mode) == 0o600


def test_the_journal_is_told_what_came_of_each_request(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near, allow=(CLIENT, os.geteuid())) as helper:
        helper.ask(line_for(near, lock))
        helper.ask(b"what?\n")
        helper.process.send_signal(signal.SIGTERM)
        assert helper.process.stderr is not None
        done, wrong = helper.process.stderr.readlines()
    assert done == f"<6>{lock}: removed \n"
    assert wrong.startswith("<4>")
    assert len(wrong) > len("<4>\n")


def test_the_journal_is_told_who_asked_that_may_not(near: ThrowawayStore) -> None:
    with serving(near, allow=(CLIENT + 1, CLIENT + 2)) as helper:
        helper.ask(line_for(near, stale_lock(near)), uid=CLIENT)
        helper.process.send_signal(signal.SIGTERM)
        assert helper.process.stderr is not None
        (said,) = helper.process.stderr.readlines()
    assert said.startswith(f"<4>uid {CLIENT} (pid ")
    assert said.endswith(") may not ask\n")


def test_what_nix_has_as_valid_stays(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    nix = f"{near.state_dir}/nix-that-knows-it"
    write_answering_nix(nix, [near.path(lock)])
    with serving(near, "--nix", nix) as helper:
        outcome, _ = helper.ask(line_for(near, lock))
    assert (outcome["status"], outcome["unproved"]) == ("kept", False)
    assert outcome["reasons"] == ["Nix says it is a valid path"]
    assert lock in names(near)


def test_without_nix_everything_stays(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near, "--nix", "/nowhere/nix") as helper:
        outcome, _ = helper.ask(line_for(near, lock))
    assert (outcome["status"], outcome["unproved"]) == ("kept", True)
    assert lock in names(near)


def test_what_is_held_stays(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near) as helper, holding(near.path(lock)):
        outcome, _ = helper.ask(line_for(near, lock))
    assert outcome["status"] == "kept"
    assert lock in names(near)


def test_a_broken_world_is_told_and_the_helper_goes_on(near: ThrowawayStore) -> None:
    line = line_for(near, stale_lock(near))
    database = f"{near.state_dir}/db/db.sqlite"
    os.rename(database, f"{database}.away")
    with serving(near) as helper:
        (end,) = helper.ask(line)
        assert "there is no Nix database" in end["error"]
        os.rename(f"{database}.away", database)
        assert helper.ask(line)[0]["status"] == "removed"


def test_an_audit_log_that_cannot_be_written_is_told(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near, "--audit-log", "/nowhere/below/audit.jsonl") as helper:
        (end,) = helper.ask(line_for(near, lock))
    assert "cannot open the audit log" in end["error"]
    assert end["code"] == "unavailable"
    assert lock in names(near)


def wait_until_removed(place: ThrowawayStore, lock: str) -> None:
    """Return when the log has the result too."""
    deadline = time.monotonic() + 20
    while lock in names(place) or not records(place, "result"):
        assert time.monotonic() < deadline, "the work was not ended"
        time.sleep(0.02)


def wait_until_read(connection: socket.socket) -> None:
    """Return when the other end has read all that was sent."""
    deadline = time.monotonic() + 20
    while any(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))):
        assert time.monotonic() < deadline, "it was not read"
        time.sleep(0.02)


def say_and_leave(path: str, data: bytes) -> None:
    """A client that does not wait for the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(data)


def test_a_client_that_goes_away_has_its_work_done_all_the_same(near: ThrowawayStore) -> None:
    locks = [stale_lock(near, name) for name in "abcdefgh"]
    with serving(near, allow=(CLIENT, os.geteuid())) as helper:
        say_and_leave(helper.socket, line_for(near, *locks))
        for lock in locks:
            wait_until_removed(near, lock)
        late = stale_lock(near, "late")
        assert helper.ask(line_for(near, late))[0]["status"] == "removed"
    assert audit_is_whole(near)


def test_a_signal_lets_the_request_end_first(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    with serving(near, allow=(CLIENT, os.geteuid())) as helper:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(helper.socket)
            line = line_for(near, lock)
            connection.sendall(line[:1])
            wait_until_read(connection)
            helper.process.send_signal(signal.SIGTERM)
            connection.sendall(line[1:])
            lines = connection.makefile("rb").readlines()
        assert len(lines) == 2
        assert helper.process.wait(20) == 0
    assert lock not in names(near)
    assert audit_is_whole(near)
    assert not os.path.exists(socket_of(near))
