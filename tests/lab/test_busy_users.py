# SPDX-License-Identifier: MIT
"""Debris of a build user who builds on: Nix gives each next build the first user that is free.

`STOREWARDEN_LAB_BUSY` is how many builds of a second each that user has to do.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import pytest

from lab import jobs
from lab.machine import Machine, control
from lab.service import WATCHER, wait_until_gone
from real import namespace as ns
from real.builds import Build, retry, stranded
from real.rig import Rig, unregistered, valid_paths
from real.warden import Report, finding, scan, statuses

BUILDS = int(os.environ.get("STOREWARDEN_LAB_BUSY", "5"))
A_WHILE = 3.0
# One that leaves its parents: it is the first process's child then, as one of debris would be.
DETACHED = "(setsid sh -c 'echo $$ > NOTE; exec sleep 600' >/dev/null 2>&1 &)\n"


_SECOND = """
n=0
while [ $n -lt 10 ] || [ -e BASE/signals/hold ]; do
    [ ! -e BASE/signals/hold ] || : > BASE/scratch/held
    sleep 0.1
    n=$((n + 1))
done
"""


@dataclass(frozen=True, slots=True)
class Busy:
    """One client's builds, one after the other, all as that user."""

    names: list[str]
    uid: int
    client: ns.Child


def kept_busy(rig: Rig, uid: int, builds: int = BUILDS, before: str = "") -> Busy:
    """Start builds that go on as that user; returns when the first has begun."""
    names = [f"busy{number}" for number in range(builds)]
    script = f"{jobs.WITNESS}{before}{_SECOND.replace('BASE', rig.base)}{jobs.FINISH}"
    client = jobs.start(rig, names, script, "busy", "--max-jobs", "1")
    ns.wait_until(lambda: bool(begun(rig, names)), "the first of the builds")
    assert {one.uid for one in begun(rig, names)} == {uid}
    return Busy(names, uid, client)


def begun(rig: Rig, names: list[str]) -> list[jobs.Witness]:
    seen = [jobs.witness(jobs.log_of(rig, "busy"), name) for name in names]
    return [one for one in seen if one is not None]


def unseen_debris(rig: Rig, builds: int = BUILDS) -> tuple[Build, Busy]:
    """Debris of a user who builds on, and a stopped service: one that runs looks as soon as a
    builder dies, which is before that user can be given another build.
    """
    control(rig, "kill", "--signal=STOP", WATCHER)
    dead = stranded(rig, "dead")
    return dead, kept_busy(rig, dead.uid, builds)


@contextlib.contextmanager
def in_the_middle(rig: Rig, busy: Busy) -> Iterator[None]:
    """While the build that runs, as that user, does not end."""
    hold = f"{rig.base}/signals/hold"
    Path(hold).touch()
    held = f"{rig.base}/scratch/held"
    ns.wait_until(lambda: os.path.exists(held), "a build that is held")
    yield
    assert busy.client.process.poll() is None, jobs.log_of(rig, "busy")
    os.unlink(hold)


def processes_of(rig: Rig, uid: int) -> set[int]:
    return {process.pid for process in ns.processes(rig.namespace) if process.uid == uid}


def assert_all_ended_well(rig: Rig, busy: Busy) -> None:
    assert busy.client.process.wait(60) == 0, jobs.log_of(rig, "busy")
    seen = begun(rig, busy.names)
    assert [one.uid for one in seen] == [busy.uid] * len(busy.names), "it was not that user's"
    for path in jobs.log_of(rig, "busy").splitlines()[-len(busy.names) :]:
        assert path in valid_paths(rig)
        assert os.listdir(rig.outside(path)) == ["result"]


def assert_builds_again_as_another(rig: Rig, build: Build, busy: Busy) -> None:
    """While its first user is at work: it finds nothing, and its result is whole."""
    with in_the_middle(rig, busy):
        again = retry(rig, build.recipe)
        assert again.returncode == 0, again.stderr
    uids = re.findall(r"^builder uid=(\d+)", again.stderr, re.MULTILINE)
    assert uids
    assert str(build.uid) not in uids
    assert os.listdir(rig.outside(again.stdout.strip())) == ["result"]


def test_debris_goes_while_its_build_user_builds_on(rig: Rig) -> None:
    dead = stranded(rig, "dead")
    busy = kept_busy(rig, dead.uid)
    report = scan(rig, "--yes")
    assert busy.client.process.poll() is None, "they came to their end before anybody looked"
    assert_removed(report, dead)
    assert_builds_again_as_another(rig, dead, busy)
    assert_all_ended_well(rig, busy)


def test_the_service_removes_debris_while_its_build_user_builds_on(
    service: Machine,
) -> None:
    rig = service.rig
    dead, busy = unseen_debris(rig)
    control(rig, "kill", "--signal=CONT", WATCHER)
    wait_until_gone(rig, dead)
    assert busy.client.process.poll() is None, "they came to their end before it was gone"
    assert_builds_again_as_another(rig, dead, busy)
    assert_all_ended_well(rig, busy)


def test_debris_is_kept_while_an_orphan_of_its_busy_user_lives(rig: Rig) -> None:
    dead = stranded(rig, "dead")
    busy = kept_busy(rig, dead.uid, 1)
    with in_the_middle(rig, busy):
        orphan = orphan_of(rig, dead.uid)
        report = scan(rig, "--yes")
        assert_kept_for(rig, dead, report, orphan.pid)
        ns.kill(rig.namespace, SIGKILL, orphan.pid)
        orphan.process.wait(10)
        assert_removed(scan(rig, "--yes"), dead)
    assert_all_ended_well(rig, busy)


def test_the_service_keeps_debris_until_the_orphan_of_its_busy_user_has_ended(
    service: Machine,
) -> None:
    rig = service.rig
    dead, busy = unseen_debris(rig, 1)
    with in_the_middle(rig, busy):
        orphan = orphan_of(rig, dead.uid)
        control(rig, "kill", "--signal=CONT", WATCHER)
        with pytest.raises(AssertionError, match="not removed within"):
            wait_until_gone(rig, dead, A_WHILE)
        assert dead.outputs["out"] in unregistered(rig)
        ns.kill(rig.namespace, SIGKILL, orphan.pid)
        orphan.process.wait(10)
        wait_until_gone(rig, dead, 10)
    assert_all_ended_well(rig, busy)


def test_debris_is_kept_while_its_busy_user_has_a_process_that_left_its_parents(rig: Rig) -> None:
    """It may be of the debris or of the build that runs: nobody can tell."""
    dead = stranded(rig, "dead")
    note = f"{rig.base}/scratch/detached"
    busy = kept_busy(rig, dead.uid, 1, DETACHED.replace("NOTE", note))
    with in_the_middle(rig, busy):
        ns.wait_until(lambda: os.path.exists(note) and ns.read(note) != "", "the detached process")
        detached = int(ns.read(note))
        [process] = [one for one in ns.processes(rig.namespace) if one.pid == detached]
        assert process.uid == dead.uid
        report = scan(rig, "--yes")
        assert finding(report, dead.outputs["out"])["verdict"] == "keep"
        assert dead.outputs["out"] in unregistered(rig)
        ns.kill(rig.namespace, SIGKILL, detached)
    assert_all_ended_well(rig, busy)


def orphan_of(rig: Rig, uid: int) -> ns.Child:
    """A process of that user that no build's worker has begun.

    Nix kills all that a user runs when it takes its lock, so it begins after a build has done so.
    """
    words = ["setpriv", f"--reuid={uid}", f"--regid={rig.build_group}", "--clear-groups"]
    child = ns.start(rig.namespace, [*words, "sleep", "600"], log=f"{rig.base}/logs/orphan")
    ns.wait_until(lambda: child.pid in processes_of(rig, uid), "the orphan")
    return child


def assert_removed(report: Report, build: Build) -> None:
    """With it go locks that nobody holds of builds that wait for their turn, as Nix leaves them."""
    outcomes = statuses(report)
    assert {path: outcomes.get(path) for path in build.entries} == dict.fromkeys(
        build.entries, "removed"
    ), report


def assert_kept_for(rig: Rig, build: Build, report: Report, pid: int) -> None:
    found = finding(report, build.outputs["out"])
    assert found["verdict"] == "keep"
    assert any(f"process {pid}" in reason for reason in found["reasons"]), found["reasons"]
    assert unregistered(rig) >= build.entries
