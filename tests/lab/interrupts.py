# SPDX-License-Identifier: MIT
"""Ways to end a build that only a whole machine has: its unit is killed, its power is cut."""

import os
from enum import Enum
from signal import SIGKILL

from lab.machine import Machine, power_cut, start_nix
from real import builds
from real import namespace as ns
from real.builds import Build, Interrupt, builder_lives
from real.rig import Rig


class Outage(Enum):
    """What happens to the daemon, not to one build."""

    UNIT_KILLED = "unit killed"
    POWER_CUT = "power cut"


def strand(machine: Machine, build: Build, how: Interrupt | Outage) -> Rig:
    """Interrupt it, and see that it left all that an unsandboxed build leaves."""
    rig = interrupt(machine, build, how)
    left = {path for path in build.entries if os.path.lexists(rig.outside(path))}
    assert left == build.entries, f"{how.value} did not strand all of {build.entries}"
    return rig


def interrupt(machine: Machine, build: Build, how: Interrupt | Outage) -> Rig:
    """Interrupt it; gives what runs then, in which all has ended that ends by that."""
    if isinstance(how, Interrupt):
        builds.interrupt(machine.rig, build, how)
        return machine.rig
    if how is Outage.POWER_CUT:
        rig = power_cut(machine)
    else:
        rig = machine.rig
        # Not `systemctl kill`: of 252 it gives up where one of them ends before its turn.
        group = "/sys/fs/cgroup/system.slice/nix-daemon.service/cgroup.kill"
        done = ns.run(rig.namespace, ["sh", "-c", f"echo 1 > {group}"])
        assert done.returncode == 0, done.stderr
        ns.wait_until(lambda: not builder_lives(rig, build), "the end of the builder")
        assert build.client.process.wait(20) != 0, ns.read(build.log)
        ns.kill(rig.namespace, SIGKILL, build.worker)
        start_nix(rig)
    return rig


def end_orphan(rig: Rig, build: Build) -> None:
    """Let a builder that outlived its worker (up to Nix 2.33) come to its end."""
    builds.let_finish(rig, build.recipe)
    ns.wait_until(lambda: not builder_lives(rig, build), "the end of the orphaned builder")
