# SPDX-License-Identifier: MIT
"""A root booted with systemd as its first process: boot, power cut, and an empty store again.

To the tests it is a rig like any other (`real.rig.Rig`), so that what builds, interrupts and
looks at the store is the same there as here.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from signal import SIGKILL

from lab.booting import boot, cut, remove_control_group
from lab.places import lab
from real import namespace as ns
from real.furniture import PLACES
from real.rig import Rig, answers

_USERS = {"root": 0, "alice": 1500, "trusty": 1501, "bob": 1502}


@dataclass(frozen=True, slots=True)
class Machine:
    suite: str
    base: str
    """A directory on the host that is bound into the root under the same name."""
    boots: list[Rig]

    @property
    def rig(self) -> Rig:
        """What is booted now: a power cut ends one and begins another."""
        return self.boots[-1]

    @property
    def delivery(self) -> str:
        """Where storewarden as a user has it is kept, for tests to copy (`lab.service`)."""
        return f"{self.base}/delivery"


@contextlib.contextmanager
def booted(suite: str) -> Iterator[Machine]:
    """The root of that suite, running, and nobody else's."""
    base = f"{lab()}/run/{suite}"
    os.makedirs(base, exist_ok=True)
    with open(f"{lab()}/run/{suite}.used", "w", encoding="ascii") as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        _furnish(base)
        machine = Machine(suite, base, [])
        machine.boots.append(boot(suite, base))
        try:
            yield machine
        finally:
            cut(machine.rig)
            remove_control_group(suite)


def power_cut(machine: Machine) -> Rig:
    """End every process of the root at the same moment, and boot it again."""
    cut(machine.rig)
    machine.boots.append(boot(machine.suite, machine.base))
    start_nix(machine.rig)
    return machine.rig


def reset(machine: Machine) -> Rig:
    """An empty store, none of the processes of before, and a daemon that answers."""
    rig = machine.rig
    # Killed first: nix-daemon does not end by SIGTERM when that comes just before it waits for the
    # next client (`daemonLoop` asks before `accept`, not during it: src/nix/unix/daemon.cc, 2.26).
    ns.kill(rig.namespace, SIGKILL, *_ours(rig))
    control(rig, "stop", "nix-daemon.socket", "nix-daemon.service")
    ns.kill(rig.namespace, SIGKILL, *_ours(rig))
    ns.reap(rig.namespace)
    below = [p for p in _mount_points(rig) if p.startswith("/nix/")]
    for point in sorted(below, reverse=True):
        assert ns.run(rig.namespace, ["umount", point]).returncode == 0, point
    places = [f"{machine.base}/{place}" for place in PLACES if place != "nix"]
    for place in (*places, f"{rig.root}/nix"):
        if os.path.isdir(place):
            contents = [f"{place}/{name}" for name in os.listdir(place)]
            subprocess.run(["rm", "-rf", "--one-file-system", *contents], check=True)
    with open(f"{machine.base}/outside/file", "w", encoding="ascii") as file:
        file.write("not in the store\n")
    start_nix(rig)
    return rig


def start_nix(rig: Rig) -> None:
    """Start the daemon's units, and return when it answers."""
    control(rig, "reset-failed")
    for words in (["systemd-tmpfiles", "--create", "nix-daemon.conf"], ["nix-store", "--init"]):
        made = ns.run(rig.namespace, words)
        assert made.returncode == 0, made.stderr
    control(rig, "start", "nix-daemon.socket", "nix-daemon.service")
    ns.wait_until(lambda: answers(f"{rig.state}/daemon-socket/socket"), "nix-daemon")


def control(rig: Rig, *words: str) -> str:
    """`systemctl WORDS`, which must succeed."""
    done = ns.run(rig.namespace, ["systemctl", *words])
    assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def _furnish(base: str) -> None:
    for place in ("pycache", "delivery"):
        shutil.rmtree(f"{base}/{place}", ignore_errors=True)  # of what was tested here before
    os.chmod(base, 0o755)  # noqa: S103 - ordinary users run things in it
    for place in (*PLACES, "source/src", "source/tests"):
        os.makedirs(f"{base}/{place}", exist_ok=True)
    os.chmod(f"{base}/audit", 0o700)
    os.chmod(f"{base}/scratch", 0o1777)  # noqa: S103 - it is everybody's TMPDIR
    for user, uid in _USERS.items():
        os.makedirs(f"{base}/home/{user}", exist_ok=True)
        os.chown(f"{base}/home/{user}", uid, -1)


def _ours(rig: Rig) -> list[int]:
    """What tests or Nix started: entered from outside, or builds, or belongs to the daemon."""
    return [
        process.pid
        for process in ns.processes(rig.namespace)
        if (process.parent == 0 and process.pid != 1)
        or process.uid in {*rig.build_users, *_USERS.values()} - {0}
        or process.command.startswith("nix")
    ]


def _mount_points(rig: Rig) -> list[str]:
    lines = ns.read(f"/proc/{rig.namespace.first}/mounts").splitlines()
    return [line.split()[1].replace("\\040", " ") for line in lines]
