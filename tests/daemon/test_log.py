# SPDX-License-Identifier: MIT
"""The service's log, and what systemd would hear, on a real datagram socket."""

import io
import json
import os
import pty
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storewarden.daemon.log import notifying, reloading, service_log, watchdog_interval

HOSTILE = "a\x1b[31m\nb\u202e"


def test_elsewhere_an_event_is_one_json_object_a_line() -> None:
    stream = io.StringIO()
    service_log(stream, {}).warning("not removed", path=HOSTILE, files=3)
    [line] = stream.getvalue().splitlines()
    document = json.loads(line)
    assert list(document)[:3] == ["timestamp", "level", "event"]
    assert (document["event"], document["level"], document["files"]) == (
        "not removed",
        "warning",
        3,
    )
    assert document["path"] == r"a\x1b[31m\nb\u202e"


def test_for_the_journal_a_line_begins_with_its_priority() -> None:
    stream = io.StringIO()
    log = service_log(stream, {"JOURNAL_STREAM": "8:1"})
    log.info("removed", path="/nix/store/x", files=3)
    log.error("problem", text="no disk", where="")
    log.debug("not wanted")
    assert stream.getvalue().splitlines() == [
        "<6>removed path=/nix/store/x files=3",
        '<3>problem text="no disk" where=""',
    ]


def on_terminal(environment: dict[str, str]) -> str:
    above, below = pty.openpty()
    with (
        os.fdopen(above, "rb", buffering=0) as reader,
        os.fdopen(below, "w", encoding="utf-8") as stream,
    ):
        service_log(stream, environment).info("removed", path=HOSTILE)
        stream.flush()
        return reader.read(4096).decode()


def test_on_a_terminal_it_is_for_people_and_a_name_cannot_play_tricks() -> None:
    line = on_terminal({"TERM": "xterm"})
    assert "removed" in line
    assert "\x1b[31m\n" not in line
    assert r"a\x1b[31m\nb\u202e" in line


def test_on_a_terminal_levels_have_the_colours_of_their_meaning() -> None:
    assert "[\x1b[32m" in on_terminal({"TERM": "xterm"})


def test_on_a_terminal_colours_can_be_turned_off() -> None:
    assert "\x1b" not in on_terminal({"TERM": "xterm", "NO_COLOR": "1"})
    assert "\x1b" not in on_terminal({"TERM": "dumb"})


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bytes]]:
    """What comes in at that address when these states are told, with that NOTIFY_SOCKET."""

    def listen(address: str, told: str, *states: str) -> list[bytes]:
        monkeypatch.setenv("NOTIFY_SOCKET", told)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(10)
            with notifying() as notify:
                assert "NOTIFY_SOCKET" not in os.environ, "Nix would inherit it"
                for state in states:
                    notify(state)
            return [manager.recv(4096) for _ in states]

    return listen


def test_a_state_is_told_to_the_service_manager(
    heard: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    place = f"{tmp_path}/notify"
    assert heard(place, place, "READY=1", "STATUS=3 found") == [b"READY=1", b"STATUS=3 found"]


def test_a_state_with_other_letters_is_not_lost(
    heard: Callable[..., list[bytes]], tmp_path: Path
) -> None:
    place = f"{tmp_path}/notify"
    assert heard(place, place, "STATUS=\u20ac\udcff") == [b"STATUS=??"]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_understood(heard: Callable[..., list[bytes]]) -> None:
    name = f"storewarden-test-{os.getpid()}"
    assert heard(f"\0{name}", f"@{name}", "READY=1") == [b"READY=1"]


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with notifying() as notify:
        notify("READY=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_signs_of_life_are_wanted_in_half_the_time_allowed(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_interval(environment) == seconds


def test_a_reload_is_told_with_the_clock() -> None:
    state, clock = reloading().splitlines()
    assert state == "RELOADING=1"
    assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
