# SPDX-License-Identifier: MIT
"""Who keeps the database open for us is not relied on (tests/real/test_kept_open.py has a Nix)."""

import os
import socket
import tempfile
import time
from dataclasses import replace

import pytest

from storewarden.observe import database_kept_open
from storewarden.throwaway import ThrowawayStore

needs_ordinary = pytest.mark.skipif(os.geteuid() == 0, reason="root asks nobody")


def test_without_a_daemon_it_goes_on(place: ThrowawayStore) -> None:
    with database_kept_open(place.as_store()):
        assert os.listdir(place.store_dir.path)


@needs_ordinary
def test_a_daemon_that_never_answers_is_waited_for_a_second(place: ThrowawayStore) -> None:
    with (
        tempfile.TemporaryDirectory() as state,  # a long path is none for bind()
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon,
    ):
        os.mkdir(f"{state}/daemon-socket")
        daemon.bind(f"{state}/daemon-socket/socket")
        daemon.listen()
        began = time.monotonic()
        with database_kept_open(replace(place.as_store(), state_dir=state)):
            assert time.monotonic() - began >= 1


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user does ask")
def test_root_who_can_always_read_it_asks_nobody(place: ThrowawayStore) -> None:
    with (
        tempfile.TemporaryDirectory() as state,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon,
    ):
        os.mkdir(f"{state}/daemon-socket")
        daemon.bind(f"{state}/daemon-socket/socket")
        daemon.listen()
        daemon.settimeout(0)
        store = replace(place.as_store(), state_dir=state)
        with database_kept_open(store), pytest.raises(BlockingIOError):
            daemon.accept()
