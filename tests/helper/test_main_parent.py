# SPDX-License-Identifier: MIT
"""`--for-parent` serves the process that has started the helper, as its user, and nobody else."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helper.bench import audit_is_whole, names, records
from helper.serving import ROOT, command, ended, line_for, stale_lock
from storewarden.throwaway import ThrowawayStore

REFUSAL = "--for-parent is for a socketpair that the parent leaves at standard input"


def words_of(place: ThrowawayStore) -> list[str]:
    """The helper's command line, as a parent's."""
    return command(place, "--for-parent=by a test", allow=())


@contextmanager
def served(place: ThrowawayStore) -> Iterator[socket.socket]:
    """While a helper serves this process, at the other end; it must end well, and say nothing."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            words_of(place), stdin=theirs.fileno(), stderr=subprocess.PIPE, cwd="/"
        ) as helper,
    ):
        theirs.close()
        ours.settimeout(30)
        yield ours
        ours.close()
        assert helper.wait(20) == 0
        assert helper.stderr
        assert helper.stderr.read() == b""


def test_it_answers_one_request_after_the_other(near: ThrowawayStore) -> None:
    locks = [stale_lock(near, name) for name in "ab"]
    with served(near) as connection, connection.makefile("rb") as lines:
        for lock in locks:
            connection.sendall(line_for(near, lock))
            assert b'"status":"removed"' in lines.readline()
            assert lines.readline() == b'{"end":true,"error":"","v":1}\n'
        connection.sendall(b"what?\n")
        assert b'"code":"unreadable"' in lines.readline()
    assert not names(near) & {*locks}
    assert audit_is_whole(near)
    who = {"uid": os.getuid(), "pid": os.getpid(), "via": "by a test"}
    assert [one["requester"] for one in records(near, "intent")] == [who, who]


def test_a_parent_that_never_asks_is_served_until_it_goes(near: ThrowawayStore) -> None:
    with served(near):
        pass


@pytest.mark.parametrize("deaf", [(), ("sh", "-c", 'trap "" INT; exec "$@"', "sh")])
def test_where_its_parent_interrupts_it_it_leaves_at_once_without_a_word(
    deaf: tuple[str, ...], near: ThrowawayStore
) -> None:
    lock = stale_lock(near)
    ours, theirs = socket.socketpair()
    with (
        ours,
        subprocess.Popen(
            [*deaf, *words_of(near)], stdin=theirs.fileno(), stderr=subprocess.PIPE, cwd="/"
        ) as helper,
    ):
        theirs.close()
        ours.sendall(b"what?\n")  # when that is answered it serves
        assert b'"code":"unreadable"' in ours.recv(4096)
        helper.send_signal(signal.SIGINT)
        assert helper.wait(20) == 130
        assert helper.stderr
        assert helper.stderr.read() == b""
    assert lock in names(near)


def test_what_a_parent_keeps_from_itself_ends_the_helper_all_the_same(near: ThrowawayStore) -> None:
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        helper = subprocess.Popen(words_of(near), stdin=theirs.fileno(), cwd="/")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with helper, ours, theirs:
        ours.sendall(b"what?\n")  # when that is answered it serves
        assert b'"code":"unreadable"' in ours.recv(4096)
        helper.send_signal(signal.SIGTERM)
        assert helper.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells where a process is")
def test_it_does_not_stay_where_it_was_started(near: ThrowawayStore) -> None:
    ours, theirs = socket.socketpair()
    words, where = words_of(near), near.state_dir
    with subprocess.Popen(words, stdin=theirs.fileno(), cwd=where) as helper, ours:
        theirs.close()
        ours.sendall(b"what?\n")
        assert b'"code":"unreadable"' in ours.recv(4096)
        assert os.readlink(f"/proc/{helper.pid}/cwd") == "/"
        ours.close()
        assert helper.wait(20) == 0


def test_a_parent_is_told_why_nothing_can_be_done_for_it(near: ThrowawayStore) -> None:
    ours, theirs = socket.socketpair()
    words = [*words_of(near), "--view", near.state_dir]
    with ours, theirs:
        status, said = ended(words, stdin=theirs.fileno())
        theirs.close()
        ours.settimeout(20)
        told = ours.makefile("rb").readlines()
    assert (status, said, len(told)) == (0, "", 1)
    assert b'"code":"unreadable"' in told[0]
    assert b"the helper cannot work: " in told[0]
    assert b"is not the directory" in told[0]


def refused(place: ThrowawayStore, stdin: int) -> None:
    """It ends at once, having touched nothing."""
    lock = stale_lock(place, f"lock-{len(names(place))}")
    status, told = ended(words_of(place), stdin=stdin)
    assert (status, REFUSAL in told) == (3, True)
    assert lock in names(place)


@pytest.mark.parametrize("what", [os.devnull, __file__])
def test_what_is_no_socket_is_refused(what: str, near: ThrowawayStore) -> None:
    fd = os.open(what, os.O_RDONLY)
    refused(near, fd)
    os.close(fd)


def test_a_connection_of_who_called_is_refused(near: ThrowawayStore) -> None:
    # As a unit of systemd's with Accept=yes would hand it over, or launchd's inetdCompatibility.
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(f"{near.state_dir}/s")
        listener.listen()
        client.connect(f"{near.state_dir}/s")
        with listener.accept()[0] as connection:
            for end in (connection, client):
                refused(near, end.fileno())


def test_another_kind_of_socket_is_refused(near: ThrowawayStore) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        for end in socket.socketpair(socket.AF_UNIX, kind):
            with end:
                refused(near, end.fileno())


@pytest.mark.skipif(not ROOT, reason="only root can be somebody else for a moment")
def test_a_pair_that_another_user_has_made_is_refused(near: ThrowawayStore) -> None:
    # As it would come through sudo.
    os.seteuid(65534)
    ours, theirs = socket.socketpair()
    os.seteuid(0)
    with ours, theirs:
        refused(near, theirs.fileno())


def test_it_serves_users_or_its_parent_and_never_both(near: ThrowawayStore) -> None:
    status, told = ended(command(near, "--for-parent=x"))
    assert status == 2
    assert "--allow-uid UID or --allow-user NAME" in told
