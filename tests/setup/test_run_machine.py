# SPDX-License-Identifier: MIT
"""Where setup refuses to touch the machine itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storewarden.setup.run import ASK

SETUP = (sys.executable, "-m", "storewarden", "setup")
BOOTED = os.path.isdir("/run/systemd/system")


def refused(*words: str) -> str:
    done = subprocess.run([*SETUP, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stdout == ""
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux" or BOOTED, reason="systemd runs here")
def test_without_systemd_it_says_what_to_do_instead() -> None:
    assert "as root: storewarden watch" in refused()
    assert "no systemd runs here" in refused("--dry-run")


@pytest.mark.skipif(not BOOTED or os.geteuid() == 0, reason="only for an ordinary user")
def test_an_ordinary_user_is_told_to_be_root() -> None:
    assert "sudo storewarden setup" in refused()


def test_a_helper_that_is_not_there_gives_a_reason(tmp_path: Path) -> None:
    asked = [sys.executable, "-c", ASK, f"{tmp_path}/helper.sock"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    assert "helper.sock cannot be reached: no such file" in done.stdout


def test_a_staging_directory_must_be_there() -> None:
    assert "/nowhere/staging is not a directory" in refused("--root", "/nowhere/staging")


def test_the_machine_itself_is_no_staging_directory() -> None:
    assert "leave it out" in refused("--root", "/")


def test_the_question_to_the_helper_is_whole() -> None:
    words = [sys.executable, "-I", "-B", "-c", ASK, "/nowhere/helper.sock"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/nowhere/helper.sock" in done.stdout
