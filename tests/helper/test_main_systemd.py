# SPDX-License-Identifier: MIT
"""What the helper and systemd have to do with each other: the socket, READY, and who may ask."""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from helper.bench import names
from helper.serving import (
    CLIENT,
    HAND_OVER,
    HELPER,
    command,
    ended,
    line_for,
    serving,
    stale_lock,
    started,
)
from storewarden.strict_json import load
from storewarden.throwaway import ThrowawayStore

ANOTHER_COUNT = HAND_OVER.replace('"LISTEN_FDS": "1"', '"LISTEN_FDS": "2"')


def handed(fd: int, words: Sequence[str], how: str = HAND_OVER) -> list[str]:
    """The command that hands over that descriptor as systemd does, and becomes the helper."""
    return [sys.executable, "-I", "-S", "-c", how, str(fd), *words]


@contextlib.contextmanager
def listener_at(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - clients are other users
        listener.listen()
        yield listener


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract addresses")
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_it_serves_and_when_it_stops(
    abstract: bool,  # noqa: FBT001 - a case
    near: ThrowawayStore,
) -> None:
    place = f"{near.state_dir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0{place}" if abstract else place)
        told.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": f"@{place}" if abstract else place}
        with started(command(near), env=environment) as process:
            assert told.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert told.recv(100) == b"STOPPING=1"
            assert process.wait(20) == 0


def test_it_serves_also_where_systemd_cannot_be_told(near: ThrowawayStore) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": "/nowhere/notify"}
    with started(command(near), env=environment) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_who_may_ask_can_be_said_by_name(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    name = pwd.getpwuid(CLIENT).pw_name
    # The last of several: all of them may ask.
    with serving(near, "--allow-user", name, allow=(CLIENT + 1,)) as helper:
        assert helper.ask(line_for(near, lock))[0]["status"] == "removed"


def test_a_name_that_nobody_has_is_told() -> None:
    status, said = ended([*HELPER, "--allow-user", "no-such-user"])
    assert status == 2
    assert "there is no user 'no-such-user'" in said


def test_it_does_not_start_for_nobody() -> None:
    status, said = ended(HELPER)
    assert status == 2
    assert "--allow-uid UID or --allow-user NAME" in said


def test_two_sockets_are_refused(near: ThrowawayStore) -> None:
    with listener_at(f"{near.state_dir}/two") as listener:
        fd = listener.fileno()
        assert_refused(handed(fd, command(near), ANOTHER_COUNT), fd)


def test_a_socket_that_does_not_listen_is_refused(near: ThrowawayStore) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
        assert_refused(handed(mute.fileno(), command(near)), mute.fileno())


def test_a_socket_of_the_network_is_refused(near: ThrowawayStore) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as network:
        network.bind(("127.0.0.1", 0))
        network.listen()
        assert_refused(handed(network.fileno(), command(near)), network.fileno())


def test_a_file_in_the_place_of_the_socket_is_refused(near: ThrowawayStore) -> None:
    with open(f"{near.state_dir}/file", "w+", encoding="ascii") as file:
        assert_refused(handed(file.fileno(), command(near)), file.fileno())


def assert_refused(words: Sequence[str], fd: int) -> None:
    status, said = ended(words, pass_fds=[fd])
    assert status == 3
    assert "must be one Unix stream socket that listens" in said


def test_who_waits_is_told_why_it_cannot_work_and_waits_no_longer(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    path = f"{near.state_dir}/handed-over"
    with listener_at(path) as listener, contextlib.ExitStack() as waiting:
        clients = []
        for _ in range(3):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(path)
            client.sendall(line_for(near, lock))
            clients.append(client)
        fd = listener.fileno()
        words = handed(fd, command(near, "--view", near.state_dir))
        status, said = ended(words, pass_fds=[fd])
        assert status == 3
        assert "is not the directory" in said
        for client in clients:
            answer = load(client.makefile("rb").readline())
            assert isinstance(answer, dict)
            assert "the helper cannot work: " in str(answer["error"])
            assert "is not the directory" in str(answer["error"])
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert lock in names(near)


def test_nix_is_not_told_where_systemd_listens(near: ThrowawayStore) -> None:
    seen = f"{near.state_dir}/seen"
    nix = f"{near.state_dir}/nix-that-looks"
    with open(nix, "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\nenv > {seen}\nexit 1\n")
    os.chmod(nix, 0o755)  # noqa: S103 - a program
    environment = {**os.environ, "NOTIFY_SOCKET": "/nowhere/notify"}
    lock = stale_lock(near)
    words = command(near, "--nix", nix, allow=(os.geteuid(),))
    with started(words, env=environment) as process:
        asked = [sys.executable, "-c", ASK, f"{near.state_dir}/../../../run/helper.sock"]
        line = line_for(near, lock)
        assert subprocess.run(asked, input=line, capture_output=True, check=True).stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with open(seen, encoding="ascii") as file:
        assert "NOTIFY_SOCKET" not in file.read()


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(sys.stdin.buffer.read())
    print(connection.makefile("rb").readlines())
"""
