# SPDX-License-Identifier: MIT
"""Ctrl-C, a reader that goes away, and a person at a terminal."""

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from command import Desk, open_desk, run, strand_lock
from stand_in import ends, write_answering_nix, write_program
from storewarden.audit_reading import verify
from storewarden.throwaway import ThrowawayStore


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with 40 lock files that could be removed, and a stand-in for Nix."""
    for number in range(40):
        strand_lock(place, f"many-{number}")
    return open_desk(place, tmp_path)


def test_interrupted_while_nix_hangs_nothing_is_removed_and_nix_is_ended(
    desk: Desk, tmp_path: Path
) -> None:
    write_program(
        desk.nix,
        f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 300\n",
    )
    with subprocess.Popen(
        desk.scan("--yes"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        while not (tmp_path / "pid").exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        try:
            out, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert (child.returncode, out) == (130, "")
    assert err == "storewarden: error: interrupted; nothing was removed\n"
    assert desk.locks() == 40
    assert ends(int((tmp_path / "pid").read_text()))


def _interrupting_nix(desk: Desk, times: int) -> None:
    """One that interrupts the scan when it is asked for the second time: by the scan's helper."""
    write_answering_nix(f"{desk.nix}-answers")
    scan = "$(ps -o ppid= -p $PPID)"
    interrupt = f"kill -INT {scan}; sleep 0.2; " * times
    counter = f"{desk.nix}-asked"
    write_program(
        desk.nix,
        f'if [ -e {counter} ]; then {interrupt}fi\n: > {counter}\nexec {desk.nix}-answers "$@"\n',
    )


def test_interrupted_once_the_batch_at_work_is_ended_and_the_rest_left(desk: Desk) -> None:
    _interrupting_nix(desk, times=1)
    done = run(desk.scan("--yes"))
    assert done.returncode == 130
    assert "what is listed was done, the rest is untouched" in done.stderr
    assert (desk.locks(), done.stdout.count("\nremoved: ")) == (24, 16)
    assert verify(desk.audit_log).problem == ""
    assert verify(desk.audit_log).open_intents == 0


def test_interrupted_twice_it_ends_at_once_and_the_next_run_goes_on(desk: Desk) -> None:
    _interrupting_nix(desk, times=2)
    done = run(desk.scan("--yes"))
    assert done.returncode == 130
    assert "the next run finishes what was begun" in done.stderr
    assert desk.locks() == 40
    write_answering_nix(desk.nix)
    assert run(desk.scan("--yes")).returncode == 0
    assert desk.locks() == 0
    found = verify(desk.audit_log)
    assert (found.problem, found.open_intents) == ("", 0)


@pytest.mark.parametrize("words", [("--yes",), ("--yes", "--json"), ("--dry-run",)])
def test_a_reader_that_goes_away_does_no_harm(desk: Desk, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            desk.scan(*words), stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert desk.locks() == (0 if "--yes" in words else 40)
    if "--yes" in words:
        assert verify(desk.audit_log).open_intents == 0


def at_a_terminal(
    command: list[str], answer: bytes = b"", signal_number: int = 0
) -> tuple[int, str]:
    """Run it at a terminal and answer its question so; its exit code, and all that was shown."""
    own, terminal = pty.openpty()
    shown = b""
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        asked = False
        try:
            while more := _read(own):
                shown += more
                if not asked and b"[y/N] " in shown:
                    asked = True
                    os.write(own, answer)
                    if signal_number:
                        time.sleep(0.3)  # between the question and its read it would be lost
                        child.send_signal(signal_number)
            return child.wait(timeout=30), shown.decode()
        finally:
            child.kill()
            os.close(own)


def _read(terminal: int) -> bytes:
    """What comes next from a terminal; nothing where nobody is there any more, or for too long."""
    ready, _, _ = select.select([terminal], [], [], 30)
    try:
        return os.read(terminal, 65536) if ready else b""
    except OSError:  # how Linux tells that the other side was closed
        return b""


@pytest.mark.parametrize("answer", [b"y\n", b"YES\n", b" y \n"])
def test_at_a_terminal_a_yes_removes(desk: Desk, answer: bytes) -> None:
    code, shown = at_a_terminal(desk.scan(), answer)
    assert code == 0
    assert "Remove these 40? [y/N] " in shown
    assert desk.locks() == 0


@pytest.mark.parametrize("answer", [b"n\n", b"\n", b"yep\n", b"--yes\n"])
def test_at_a_terminal_anything_else_keeps(desk: Desk, answer: bytes) -> None:
    code, _ = at_a_terminal(desk.scan(), answer)
    assert (code, desk.locks()) == (0, 40)


def test_at_a_terminal_ctrl_c_keeps(desk: Desk) -> None:
    code, shown = at_a_terminal(desk.scan(), signal_number=signal.SIGINT)
    assert (code, desk.locks()) == (130, 40)
    assert "Traceback" not in shown


def test_at_a_terminal_a_dry_run_does_not_ask(desk: Desk) -> None:
    code, shown = at_a_terminal(desk.scan("--dry-run"), b"y\n")
    assert (code, desk.locks()) == (0, 40)
    assert "[y/N]" not in shown
