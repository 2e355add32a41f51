# SPDX-License-Identifier: MIT
"""Builds started and interrupted at random, for a while, with a sweep that removes at once beside.

`STOREWARDEN_LAB_SOAK` is how many seconds it lasts.
"""

import contextlib
import glob
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from signal import SIGINT, SIGKILL

import pytest

from lab import jobs
from real import namespace as ns
from real.rig import Rig, unregistered, valid_paths
from real.warden import AT_ONCE, Report, records, scan, warden

SECONDS = float(os.environ.get("STOREWARDEN_LAB_SOAK", "20"))
EVERY = 0.2
AT_A_TIME = 6
NAMES = 12  # few, so that what was stranded is soon built again


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    generation: int
    log: str
    client: ns.Child
    ends_at: float
    """When it is interrupted, if it has not ended before."""


@dataclass(slots=True)
class Tally:
    """What became of the builds."""

    good: int = 0
    interrupted: int = 0
    wedged: int = 0
    """Failed by debris that they had found, as without storewarden."""
    generations: dict[str, int] = field(default_factory=dict)
    """How often each name was made another derivation: when it was built, or never can be."""
    sweeps: list[int] = field(default_factory=list)
    """The exit status of each."""


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_no_build_fails_that_would_not_fail_without_storewarden(rig: Rig) -> None:
    chance = random.Random(20261122)  # noqa: S311 - the same builds every time
    tally = Tally()
    with sweeping(rig, tally):
        soak(rig, chance, tally)
    assert tally.good > SECONDS / 6, tally
    assert tally.interrupted > SECONDS / 6, tally
    assert set(tally.sweeps) <= {0, 5}, tally
    assert len(tally.sweeps) >= 3, tally
    assert records(rig), "no sweep removed anything"
    assert_nothing_valid_is_lost(rig)
    assert_all_debris_goes(rig)


def soak(rig: Rig, chance: random.Random, tally: Tally) -> None:
    valid: set[str] = set()
    running: list[Running] = []
    end, number = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or running:
        if len(running) < AT_A_TIME and time.monotonic() < end:
            taken = {one.name for one in running}
            free = [f"soak{n}" for n in range(NAMES) if f"soak{n}" not in taken]
            running.append(started(rig, chance, chance.choice(free), number, tally))
            number += 1
        for one in list(running):
            if one.client.process.poll() is not None:
                running.remove(one)
                judge(rig, one, tally)
            elif time.monotonic() > one.ends_at:
                running.remove(one)
                interrupt(rig, chance, one, tally)
        now = valid_paths(rig)
        assert valid <= now, f"lost: {valid - now}"
        valid = now
        time.sleep(0.05)


def started(rig: Rig, chance: random.Random, name: str, number: int, tally: Tally) -> Running:
    """Start a build that takes a while, or goes on where an interrupted one has left debris."""
    generation = tally.generations.setdefault(name, 0)
    script = f"{jobs.WITNESS}sleep 0.{3 + generation % 6}\n{jobs.FINISH}"
    log = f"soak-{number}"
    note = f'stat -c "%u by $(id -u)" "$out" >{notes_of(rig, name, generation)}$$ 2>/dev/null\n'
    client = jobs.start(rig, [name], f"{note}{script}echo {generation} >> $out/result\n", log)
    return Running(name, generation, log, client, time.monotonic() + chance.uniform(0.1, 1.5))


def notes_of(rig: Rig, name: str, generation: int) -> str:
    """Where each builder of it notes whose debris it found, by its pid. Not all are heard of by
    their clients: one that is interrupted may hear nothing of a builder whose work is registered.
    """
    return f"{rig.base}/scratch/found-{name}-{generation}-"


def is_stale(rig: Rig, name: str, generation: int) -> bool:
    """Whether a builder of it found debris of its own user: Nix registers that with its work."""
    notes = [ns.read(note).split() for note in glob.glob(f"{notes_of(rig, name, generation)}*")]
    return any(note and note[0] == note[-1] for note in notes)


def interrupt(rig: Rig, chance: random.Random, one: Running, tally: Tally) -> None:
    """The client by either signal, or the worker, whose builder may then live on."""
    targets = [one.client.pid]
    builder = jobs.witness(jobs.log_of(rig, one.log), one.name)
    by_pid = {process.pid: process for process in ns.processes(rig.namespace)}
    if builder is not None and builder.pid in by_pid:
        targets.append(by_pid[builder.pid].parent)
    target = chance.choice(targets)
    ns.kill(rig.namespace, SIGKILL if target != one.client.pid else SIGINT, target)
    one.client.process.wait(30)
    if one.client.process.returncode == 0:
        judge(rig, one, tally)
    else:
        # What it has begun may still be registered: by its worker, or by the next build.
        tally.interrupted += 1


def judge(rig: Rig, one: Running, tally: Tally) -> None:
    """A build that came to its end by itself: well, or badly for a reason that is not ours."""
    said = jobs.log_of(rig, one.log)
    builder = jobs.witness(said, one.name)
    if one.client.process.returncode == 0:
        tally.good += 1
        tally.generations[one.name] += 1
        files = os.listdir(rig.outside(said.splitlines()[-1]))
        assert "result" in files, said
        assert files == ["result"] or is_stale(rig, one.name, one.generation), said
        return
    assert builder is not None, f"{one.name} failed before it began:\n{said}"
    tally.wedged += 1
    if f"{builder.out}.tmp' already exists" in said:
        # What a worker that was killed while it registered this has left. It is only reported.
        assert os.path.lexists(rig.outside(f"{builder.out}.tmp")), said
        tally.generations[one.name] += 1
        return
    # It found what somebody else had left, and could not write to it from its start to its end.
    assert builder.saw != "nothing", f"{one.name} was disturbed:\n{said}"
    assert builder.saw_at_end == builder.saw, f"{one.name} was disturbed:\n{said}"
    assert "Permission denied" in said, said
    # What was root's already is only reported (see test_transfers.py): it wedges for ever.
    tally.generations[one.name] += builder.saw.startswith("0:")


@contextlib.contextmanager
def sweeping(rig: Rig, tally: Tally) -> Iterator[None]:
    """While a sweep that removes what it can is begun every so often."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(EVERY):
            tally.sweeps.append(warden(rig, "scan", "--yes", *AT_ONCE).returncode)

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def locks_over(report: Report, path: str) -> list[Report]:
    """The findings of locks that were kept for the sake of that path."""
    name = os.path.basename(path)
    return [one for one in report["findings"] if any(name in said for said in one["reasons"])]


def assert_nothing_valid_is_lost(rig: Rig) -> None:
    for path in valid_paths(rig):
        assert os.path.lexists(rig.outside(path)), path
    verified = ns.run(rig.namespace, ["nix-store", "--verify", "--check-contents"])
    assert verified.returncode == 0, verified.stderr


def assert_all_debris_goes(rig: Rig) -> None:
    """Once all builders have ended, even the orphans; and all is on record."""
    users = set(rig.build_users)
    ns.wait_until(lambda: not users & {p.uid for p in ns.processes(rig.namespace)}, "orphans")
    scan(rig, "--yes")
    report = scan(rig, "--dry-run")
    # What Nix itself has made root's is only reported: it was about to register it. With it stays
    # its lock.
    kinds = {"output-of-root", "temporary"}
    roots = {one["path"] for one in report["findings"] if one["kind"] in kinds}
    theirs = {lock["path"] for path in roots for lock in locks_over(report, path)}
    assert unregistered(rig) == roots | theirs
    log = records(rig)
    intents = [one["seq"] for one in log if one["action"] == "intent"]
    results = [one["op"] for one in log if one["action"] == "result"]
    assert sorted(intents) == sorted(results) != []
