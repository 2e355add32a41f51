# SPDX-License-Identifier: MIT
"""While Nix collects garbage, storewarden stands aside; afterwards it goes on."""

import os
from signal import SIGCONT, SIGKILL, SIGSTOP

from real import namespace as ns
from real.builds import stranded
from real.rig import Rig, unregistered
from real.test_broken_worlds import (
    test_while_the_collector_works_debris_is_kept_and_removed_after,
)
from real.warden import AT_ONCE, scan, statuses, warden

SHARED = (test_while_the_collector_works_debris_is_kept_and_removed_after,)
ROOTS = 60_000


def test_beside_a_real_collector_nothing_is_removed_and_the_next_try_works(rig: Rig) -> None:
    build = stranded(rig, "debris")
    make_roots_that_take_a_while(rig)
    collector = ns.start(rig.namespace, ["nix-store", "--gc"], log=f"{rig.base}/logs/collector")
    lock = os.stat(f"{rig.state}/gc.lock").st_ino
    ns.wait_until(lambda: f":{lock} " in ns.read("/proc/locks"), "the collector's lock")
    ns.kill(rig.namespace, SIGSTOP, collector.pid)
    assert unregistered(rig) >= build.entries, "it was stopped too late"

    done = warden(rig, "scan", "--yes", *AT_ONCE)
    assert done.returncode in {0, 5}, done.stdout + done.stderr
    assert "collector" in done.stdout
    assert unregistered(rig) >= build.entries

    ns.kill(rig.namespace, SIGKILL, collector.pid)
    # nsenter stopped itself with its command, and does not notice that it has ended.
    collector.process.send_signal(SIGCONT)
    collector.process.wait(10)
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")


def make_roots_that_take_a_while(rig: Rig) -> None:
    """The collector reads all of them, its lock held, before it removes anything."""
    place = f"{rig.state}/gcroots/many"
    os.makedirs(place)
    for number in range(ROOTS):
        os.symlink("/nowhere", f"{place}/{number}")
