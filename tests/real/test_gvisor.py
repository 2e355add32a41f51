# SPDX-License-Identifier: MIT
"""Under gVisor: a kernel of its own, an overlay as its root, no /proc/locks, no renameat2(2)."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from programs import need

RUNSC = ("runsc", "--network=none", "--ignore-cgroups", "--platform=ptrace", "do")


def missing() -> str | None:
    """Why no sandbox of gVisor can be made here, in plain words, or None."""
    if os.geteuid() != 0:
        return "only root can make a sandbox of gVisor that has users"
    return (
        None if shutil.which("runsc") else "there is no runsc here (on Debian: apt install runsc)"
    )


@pytest.fixture
def gvisor() -> tuple[str, ...]:
    need("gVisor", missing())
    return RUNSC


def test_the_whole_job_is_done_under_gvisor(gvisor: tuple[str, ...]) -> None:
    command = [*gvisor, sys.executable, "-m", "storewarden", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    removed = re.findall(r"  removed [0-9a-z]{32}-(\S+)", done.stdout)
    assert {"hello-2.12", "two-outputs-2.0", "two-outputs-2.0-dev"} <= set(removed)
    assert not any("live" in name for name in removed)
    assert re.search(r"^kept: \S+-live-3.0: its lock is held", done.stdout, re.MULTILINE)
    assert "all in order" in done.stdout


def test_the_service_removes_what_real_builds_of_root_strand_under_gvisor(
    gvisor: tuple[str, ...],
) -> None:
    command = [*gvisor, sys.executable, f"{os.path.dirname(__file__)}/in_gvisor.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert (seen["left"], seen["kept"], seen["ended"]) == (True, True, 0)
    assert (seen["wakes"], seen["problems"]) == ("polling", {})
    assert seen["seconds"] < 8
    assert seen["lying"] == ["", "job.drv", "live.drv"]
