# SPDX-License-Identifier: MIT
"""How long debris lies there, from the death of its builder, and how often who retries meets it.

`STOREWARDEN_LAB_DEATHS` is how many builds are interrupted, idle and beside two busy loops;
`STOREWARDEN_LAB_RETRIES` how often a build is tried again at once.
"""

import json
import os
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGINT, SIGKILL

import pytest

from lab.interrupts import Outage
from lab.jobs import WITNESS, log_of, start, witness
from lab.machine import Machine, start_nix
from lab.service import journal, wait_until_gone
from real import namespace as ns
from real.builds import Build, Interrupt, start_build
from real.recipes import Recipe
from real.rig import Rig, unregistered

DEATHS = int(os.environ.get("STOREWARDEN_LAB_DEATHS", "6"))
RETRIES = int(os.environ.get("STOREWARDEN_LAB_RETRIES", "5"))
BUILDER_KILLED = "builder killed"
WAYS = [*Interrupt, Outage.UNIT_KILLED, BUILDER_KILLED]
SOON = 5.0
"""Far more than it takes, even where many work on the machine that runs all this."""
Property = Callable[[str, object], None]


def pidfd(rig: Rig, pid: int) -> int:
    """A descriptor of that process, by its pid inside; readable when it has ended."""
    space = os.stat(f"/proc/{rig.namespace.first}/ns/pid").st_ino
    for outside in filter(str.isdigit, os.listdir("/proc")):
        try:
            inside = f"NSpid:\t{outside}\t{pid}\n" in ns.read(f"/proc/{outside}/status")
            if inside and os.stat(f"/proc/{outside}/ns/pid").st_ino == space:
                return os.pidfd_open(int(outside))
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise AssertionError(f"process {pid} is not there")


def end(rig: Rig, build: Build, how: Interrupt | Outage | str) -> None:
    """Have its builder end in that way."""
    match how:
        case Interrupt.SIGINT_CLIENT:
            ns.kill(rig.namespace, SIGINT, build.client.pid)
        case Interrupt.SIGKILL_CLIENT:
            ns.kill(rig.namespace, SIGKILL, build.client.pid)
        case Interrupt.SIGKILL_WORKER:
            ns.kill(rig.namespace, SIGKILL, build.worker)
            time.sleep(0.5)  # for which an orphan lives, up to Nix 2.33
            ns.kill(rig.namespace, SIGKILL, build.builder)
        case Interrupt.BUILDER_FAILS:
            with open(f"{rig.base}/signals/{build.recipe.name}.fail", "w", encoding="ascii"):
                pass
        case Outage.UNIT_KILLED:
            group = "/sys/fs/cgroup/system.slice/nix-daemon.service/cgroup.kill"
            ns.run(rig.namespace, ["sh", "-c", f"echo 1 > {group}"])
        case _:
            ns.kill(rig.namespace, SIGKILL, build.builder)


def seconds_to_gone(rig: Rig, build: Build, how: Interrupt | Outage | str) -> float:
    """From the death of its builder until its output is gone."""
    died: list[float] = []
    death, out = pidfd(rig, build.builder), rig.outside(build.outputs["out"])

    def wait() -> None:
        select.select([death], [], [], 30)
        died.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    ending = threading.Thread(target=end, args=(rig, build, how))
    ending.start()
    until = time.monotonic() + 60
    while os.path.lexists(out):
        assert time.monotonic() < until, journal(rig)
        time.sleep(0.002)
    gone = time.monotonic()
    waiting.join()
    ending.join()
    os.close(death)
    build.client.process.wait(20)
    if how is Outage.UNIT_KILLED:
        start_nix(rig)
    return gone - died[0]


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """While so many processes of this machine do nothing but work."""
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("loops", [0, 2], ids=["idle", "beside two busy loops"])
@pytest.mark.timeout(120 + DEATHS * 20)
def test_what_an_interrupted_build_leaves_is_gone_at_once(
    service: Machine, loops: int, record_property: Property
) -> None:
    rig, waits = service.rig, dict[str, list[float]]()
    with busy_loops(loops):
        for number in range(DEATHS):
            how = WAYS[number % len(WAYS)]
            build = start_build(rig, Recipe(f"job-{number}"))
            name = how if isinstance(how, str) else how.value
            waits.setdefault(name, []).append(seconds_to_gone(rig, build, how))
            wait_until_gone(rig, build)
    every = sorted(wait for some in waits.values() for wait in some)
    counted = {
        "suite": service.suite,
        "busy loops": loops,
        "deaths": len(every),
        "median": round(statistics.median(every), 3),
        "p90": round(every[len(every) * 9 // 10], 3),
        "worst": round(every[-1], 3),
        "worst of each": {name: round(max(some), 3) for name, some in waits.items()},
    }
    record_property("tally", json.dumps(counted))
    assert statistics.median(every) < SOON


@pytest.mark.timeout(120 + RETRIES * 20)
def test_what_retries_at_once_leave_goes_however_often_they_meet_it(
    service: Machine, record_property: Property
) -> None:
    rig, met = service.rig, 0
    script = WITNESS + "sleep 0.3\nexit 1\n"
    for number in range(RETRIES + 1):
        log = f"again-{number}"
        client = start(rig, ["again"], script, log)
        assert client.process.wait(60) != 0
        seen = witness(log_of(rig, log), "again")
        met += number > 0 and seen is not None and seen.saw != "nothing"
    counted = {"suite": service.suite, "retries": RETRIES, "met debris": met}
    record_property("tally", json.dumps(counted))
    ns.wait_until(lambda: unregistered(rig) == set(), f"all of it to go:\n{journal(rig)}")
