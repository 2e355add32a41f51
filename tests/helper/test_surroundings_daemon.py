# SPDX-License-Identifier: MIT
"""A daemon that runs where its processes cannot be seen from here."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from helper.bench import run
from helper.child import among_own_processes, needs_root
from storewarden.errors import StoreUnreadableError
from storewarden.throwaway import ThrowawayStore


@contextmanager
def daemon(place: ThrowawayStore) -> Iterator[None]:
    """While this process listens where nix-daemon does."""
    os.mkdir(f"{place.state_dir}/daemon-socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{place.state_dir}/daemon-socket/socket")
        listener.listen(8)
        yield


def test_a_daemon_that_can_be_seen_is_fine(near: ThrowawayStore) -> None:
    path = near.strand(near.add_derivation("x")).base_name
    with daemon(near):
        assert run(near, path)[-1].status == "removed"


@needs_root
def test_a_daemon_outside_of_this_container_keeps_everything(near: ThrowawayStore) -> None:
    path = near.strand(near.add_derivation("x")).base_name

    def look() -> str:
        try:
            return run(near, path)[-1].status.value
        except StoreUnreadableError as cause:
            return str(cause)

    with daemon(near):
        assert "runs outside this container" in among_own_processes(look, proc=False)
    assert os.path.exists(near.path(path))
