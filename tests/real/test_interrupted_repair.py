# SPDX-License-Identifier: MIT
"""storewarden itself is killed in the middle of a removal: the next run ends what was begun."""

import os
import time
from signal import SIGKILL

import pytest

from real import namespace as ns
from real.builds import start_build, strand
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import AT_ONCE, command, records, warden

DELAYS = (0.0, 0.01, 0.02, 0.04, 0.08)


@pytest.mark.slow
@pytest.mark.parametrize("delay", DELAYS)
def test_a_killed_removal_is_finished_by_the_next_run(rig: Rig, delay: float) -> None:
    build = start_build(rig, Recipe("hostile", hostile=True))
    strand(rig, build)
    outside = picture(rig.etc, f"{rig.base}/outside")
    valid = valid_paths(rig)
    words = command(rig, "scan", "--yes", *AT_ONCE)
    child = ns.start(rig.namespace, words, log=f"{rig.base}/logs/killed")
    gone = rig.outside(build.outputs["out"])
    ns.wait_until(lambda: not os.path.lexists(gone), "the output to leave the store")
    time.sleep(delay)
    ns.kill(rig.namespace, SIGKILL, child.pid)
    child.process.wait(10)

    done = warden(rig, "scan", "--yes", *AT_ONCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unregistered(rig) == set()
    assert valid_paths(rig) == valid
    assert picture(rig.etc, f"{rig.base}/outside") == outside
    log = records(rig)
    intents = {one["seq"] for one in log if one["action"] == "intent"}
    assert intents == {one["op"] for one in log if one["action"] == "result"}
