# SPDX-License-Identifier: MIT
"""However often Ctrl-C is pressed, the program ends once, says so, and leaves nothing running."""

import os
import signal
import subprocess
import time
from pathlib import Path

from command import PROGRAM, SECONDS, open_desk, strand_lock
from stand_in import ends, write_program
from storewarden.throwaway import ThrowawayStore


def pressed_until_it_ends(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Its exit code and what it said on stderr, with Ctrl-C pressed every millisecond."""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.stderr
    return process.wait(SECONDS), process.stderr.read().decode()


def test_one_that_reads_a_log_ends_once() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*PROGRAM, "explain", "-"], stdin=pipe, stdout=pipe, stderr=pipe) as one:
        assert one.stdin
        assert one.stdout
        one.stdin.write(b"building\n")
        one.stdin.flush()
        assert os.read(one.stdout.fileno(), 100) == b"building\n"
        code, told = pressed_until_it_ends(one)
    assert told == "storewarden: error: interrupted; the log was not read to its end\n"
    assert code == 130


def test_one_that_still_loads_its_command_ends_once(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    slow = f"import time\nopen({str(begun)!r}, 'x').close()\ntime.sleep(60)\n"
    (tmp_path / "sqlite3.py").write_text(slow)  # no command but those that read a store loads it
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([*PROGRAM, "scan"], stdout=pipe, stderr=pipe, env=variables) as one:
        while not begun.exists():
            assert one.poll() is None
            time.sleep(0.01)
        code, told = pressed_until_it_ends(one)
    assert told == "storewarden: error: interrupted; nothing was removed\n"
    assert code == 130


def test_one_that_waits_for_nix_ends_once_and_ends_nix(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    strand_lock(place, "hello")
    desk = open_desk(place, tmp_path)
    pid = tmp_path / "pid"
    write_program(desk.nix, f"echo $$ > {pid}.new; mv {pid}.new {pid}\nexec sleep 300\n")
    pipe = subprocess.PIPE
    with subprocess.Popen(desk.scan("--yes"), stdout=pipe, stderr=pipe) as one:
        while not pid.exists():
            assert one.poll() is None
            time.sleep(0.01)
        code, told = pressed_until_it_ends(one)
    assert told == "storewarden: error: interrupted; nothing was removed\n"
    assert code == 130
    assert ends(int(pid.read_text()))
