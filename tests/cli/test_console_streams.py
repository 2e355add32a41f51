# SPDX-License-Identifier: MIT
"""Streams that are closed, full or at their end: one clear line, the right exit code, no harm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.test_scan_interrupted import at_a_terminal
from command import Desk, open_desk, run, strand_lock
from json_documents import checked
from storewarden.throwaway import ThrowawayStore


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with a lock file that could be removed, and a stand-in for Nix."""
    strand_lock(place, "hello")
    return open_desk(place, tmp_path)


def without(stream: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run it with that stream closed."""
    return run(["sh", "-c", f'exec "$@" {stream}', "sh", *command])


def test_ctrl_d_at_the_question_is_a_no(desk: Desk) -> None:
    before = desk.names()
    code, shown = at_a_terminal(desk.scan(), b"\x04")
    assert (code, desk.names()) == (0, before)
    assert "Traceback" not in shown


def test_without_stdin_nobody_is_asked(desk: Desk) -> None:
    before = desk.names()
    done = without("<&-", desk.scan())
    assert (done.returncode, desk.names()) == (0, before)


def test_without_stderr_errors_do_not_go_into_the_json(desk: Desk) -> None:
    done = without("2>&-", desk.scan("--json", "--nix", "/absent/nix"))
    assert done.returncode == 3
    assert checked(done.stdout, "scan")["findings"]


def test_a_reader_of_stderr_that_goes_away_does_no_harm(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            desk.scan(), stdout=subprocess.DEVNULL, stderr=writing, check=False, timeout=60
        )
    finally:
        os.close(writing)
    assert done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_is_told_and_what_was_begun_is_ended(desk: Desk) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            desk.scan("--yes"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode not in {0, 70}
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_a_state_directory_whose_name_is_no_text_is_read(desk: Desk, tmp_path: Path) -> None:
    strange = f"{tmp_path}/\udcff"
    shutil.copytree(desk.place.state_dir, strange)
    assert run(desk.scan("--state-dir", strange)).returncode == 0
