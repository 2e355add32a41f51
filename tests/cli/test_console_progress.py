# SPDX-License-Identifier: MIT
"""What takes long is told at a terminal in one line, which leaves nothing behind."""

import os
import re
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, open_desk, strand_lock, typed
from stand_in import write_answering_nix, write_program
from storewarden.protocol import Outcome, Status, decode_request, encode_end, encode_outcome
from storewarden.readable import REMOVE
from storewarden.throwaway import ThrowawayStore
from terminal import Shown, at, screen, terminal


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with a lock file that could be removed, and a Nix that takes its time."""
    strand_lock(place, "hello")
    opened = open_desk(place, tmp_path)
    write_answering_nix(f"{opened.nix}-answers")
    write_program(opened.nix, f'sleep 1.8; exec {opened.nix}-answers "$@"\n')
    return opened


def assert_gone(shown: Shown, told: str) -> None:
    """It was told on stderr, for so many seconds, and is not there in the end."""
    assert re.search(rf"\r {{79,}}\r{re.escape(told)}, \d+ s\b", shown.err)
    assert not [line for line in screen(shown.err) if told in line]


def test_a_sweep_tells_that_nix_is_asked_and_erases_it_before_the_result(desk: Desk) -> None:
    shown = at(80, desk.scan("--dry-run"))
    assert_gone(shown, "asking Nix about 1 path, 0 done")
    words = " ".join(screen(shown.err)).split()
    told = f"storewarden: to remove what can go: {typed(REMOVE)}".split()
    assert words[: len(told)] == told
    assert "asking" not in shown.out


def test_a_narrow_terminal_gets_no_more_of_it_than_fits_a_line(desk: Desk) -> None:
    shown = at(20, desk.scan("--dry-run", "--json"), variables={"COLUMNS": "200"})
    assert f"\r{' ' * 19}\rasking Nix about 1 \r" in shown.err
    assert screen(shown.err) == [""]


@pytest.mark.parametrize(
    ("streams", "variables"), [(("out",), {}), (("out", "err"), {"TERM": "dumb"})]
)
def test_where_a_line_cannot_be_rewritten_nothing_is_told(
    desk: Desk, streams: tuple[str, ...], variables: dict[str, str]
) -> None:
    shown = at(80, desk.scan("--json"), streams=streams, variables=variables)
    assert (shown.code, shown.err) == (0, "")


def test_what_is_done_at_once_needs_no_line() -> None:
    code = "from storewarden.cli.console import progress\nwith progress('looking'): pass"
    assert at(80, [sys.executable, "-c", code]).err == ""


def test_a_terminal_without_colours_gets_the_line_without_any_sequence(desk: Desk) -> None:
    shown = at(80, desk.scan("--dry-run"), variables={"NO_COLOR": "1"})
    assert_gone(shown, "asking Nix about 1 path, 0 done")
    assert "\x1b" not in shown.err


def test_ctrl_c_leaves_the_line_clean(desk: Desk) -> None:
    write_program(desk.nix, "exec sleep 60\n")
    shown = at(80, desk.scan("--yes"), interrupt=b"asking Nix")
    assert shown.code == 130
    assert screen(shown.err) == ["storewarden: error: interrupted; nothing was removed", ""]


def test_a_terminal_that_is_stopped_does_not_stop_a_removal(desk: Desk) -> None:
    asked = f"{desk.nix}-asked"
    slow = f"if [ -e {asked} ]; then : > {asked}-again; sleep 2.5; fi; : > {asked}; "
    write_program(desk.nix, f'{slow}exec {desk.nix}-answers "$@"\n')
    before = desk.names()
    with (
        terminal(80) as (person, there),
        subprocess.Popen(
            desk.scan("--yes"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=there,
            env={**os.environ, "TERM": "xterm"},
        ) as child,
    ):
        try:
            assert comes(lambda: os.path.exists(f"{asked}-again"))
            termios.tcflow(there, termios.TCOOFF)
            assert comes(lambda: len(desk.names()) == len(before) - 1)
            termios.tcflow(there, termios.TCOON)
            assert child.wait(timeout=30) == 0
            os.close(there)
            assert screen(os.read(person, 65536).decode())[-1] == ""
        finally:
            child.kill()


def comes(what: Callable[[], bool]) -> bool:
    """Whether it comes true within half a minute."""
    deadline = time.monotonic() + 30
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    return what()


def test_a_log_that_comes_slowly_is_told_with_how_much_was_read(tmp_path: Path) -> None:
    log = f"{tmp_path}/log"
    os.mkfifo(log)

    def write() -> None:
        with open(log, "wb", buffering=0) as file:
            file.write(b"x" * 1023 + b"\n")
            time.sleep(1.8)

    writer = threading.Thread(target=write)
    writer.start()
    shown = at(200, [*PROGRAM, "explain", "--log", log])
    writer.join()
    assert_gone(shown, f"reading {log}: 1.0 KiB of 1.0 KiB")
    assert screen(shown.err) == [""]
    assert "no known failure in 1 line" in shown.out


@contextmanager
def slow_helper(path: str) -> Iterator[None]:
    """One that takes each entry out of the store at once, and long to remove it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                requests = decode_request(connection.recv(65536))
                for status, seconds in ((Status.TAKEN, 1.8), (Status.REMOVED, 0.0)):
                    for request in requests:
                        line = encode_outcome(Outcome(request.base_name, status))
                        connection.sendall(line)
                    time.sleep(seconds)
                connection.sendall(encode_end())

        helper = threading.Thread(target=serve)
        helper.start()
        yield
        helper.join()


@pytest.mark.skipif(not ROOT, reason="only root has another user's store")
def test_a_removal_tells_what_is_at_work_after_it_has_left_the_store(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    desk = open_desk(place, tmp_path)
    lock = strand_lock(place, "hello")
    for path in (place.store_dir.path, place.path(lock)):
        os.chown(path, 4321, 4321)
    with slow_helper(f"{tmp_path}/helper.sock"):
        shown = at(200, desk.scan("--yes"))
    assert_gone(shown, f"removing: 0 of 1, 0 B freed; at {lock}")
    assert screen(shown.out)[-2:] == ["1 removed (0 B freed)", ""]
    assert "removed: " not in shown.out
