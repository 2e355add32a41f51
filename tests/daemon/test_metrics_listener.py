# SPDX-License-Identifier: MIT
"""Where Prometheus may ask the service itself: real sockets, and clients of all manners."""

import socket
import threading
from contextlib import ExitStack

import pytest

from daemon.test_metrics import BUSY, IDLE
from programs import answer, eventually, free_port
from storewarden.daemon.metrics import exposition, listening
from storewarden.errors import StorewardenError


@pytest.mark.parametrize(
    ("host", "other"), [("127.0.0.1", "127.0.0.2"), ("[::1]", "127.0.0.1"), ("localhost", "")]
)
def test_the_latest_status_is_served_there_and_nowhere_else(host: str, other: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    latest, port = [IDLE], free_port()
    with listening(f"{host}:{port}", lambda: latest[-1]):
        plain = host.strip("[]")
        assert answer(port, "/metrics", plain) == (200, exposition(IDLE))
        latest.append(BUSY)
        assert answer(port, "/metrics?x", plain) == (200, exposition(BUSY))
        assert answer(port, "/", plain)[0] == 404
        if other:
            with pytest.raises(ConnectionRefusedError):
                answer(port, "/metrics", other)
    with pytest.raises(ConnectionRefusedError):
        answer(port, "/metrics", plain)


def test_clients_that_keep_silent_or_hang_up_hinder_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    with listening(f"127.0.0.1:{port}", lambda: BUSY):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for one in silent[:10]:
            one.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            one.close()
        assert answer(port, "/metrics")[0] == 200
        for one in silent:
            one.close()
    assert capfd.readouterr() == ("", "")
    assert not [one for one in threading.enumerate() if "serve_forever" in one.name]


def test_more_connections_than_a_service_can_bear_are_closed_and_the_next_ones_answered() -> None:
    port = free_port()
    with listening(f"127.0.0.1:{port}", lambda: BUSY), ExitStack() as stack:
        place = ("127.0.0.1", port)
        for _ in range(64):
            stack.enter_context(socket.create_connection(place, 5))
        with socket.create_connection(place, 5) as further:
            assert further.recv(1) == b""
        stack.close()
        eventually(lambda: answers(port), 10)


def answers(port: int) -> bool:
    try:
        return answer(port, "/metrics")[0] == 200
    except ConnectionError:
        return False


def test_a_port_in_use_and_a_host_that_is_none_are_clear_errors() -> None:
    port = free_port()
    wanted = r"cannot listen for Prometheus on .*; change metrics-listen"
    with listening(f"127.0.0.1:{port}", lambda: IDLE):
        for address in (f"127.0.0.1:{port}", "no.such.host.invalid:1", "[::g]:1", f"{'x' * 70}:1"):
            with pytest.raises(StorewardenError, match=wanted), listening(address, lambda: IDLE):
                pytest.fail("it listens")
