# SPDX-License-Identifier: MIT
"""A removal and the next build of the same derivation, at the same moment, over and over.

Debris is of users other than those who build next, so that it fails every build that it is found
by. A build that takes its lock before storewarden does finds it, and fails as it would without
storewarden: its own words tell that it was so, what it saw at its start and at its end.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGINT

import pytest

from lab import jobs
from real import namespace as ns
from real.rig import Rig, unregistered, valid_paths
from real.warden import AT_ONCE, command, records, scan, warden

TOGETHER = 10
ROUNDS = int(os.environ.get("STOREWARDEN_LAB_ROUNDS", "10"))


@dataclass(frozen=True, slots=True)
class Race:
    won: int
    """Builds that found nothing, and ended well."""
    lost: int
    """Builds that were first at their lock, found the debris, and failed by it."""
    waited: int
    """Builds that said they wait for a lock."""


@pytest.mark.timeout(900)
def test_a_removal_racing_the_next_build_of_the_same_derivation_a_hundred_times(
    rig: Rig, record_property: Callable[[str, object], None]
) -> None:
    delay, step = 0.25, 0.12
    later = True
    races: list[Race] = []
    for number in range(ROUNDS):
        names = [f"race{number}x{n}" for n in range(TOGETHER)]
        race = one_race(rig, names, delay)
        races.append(race)
        # Always towards the delay at which each side wins as often: there the locks are fought for.
        # Where that is depends on the machine, so steps grow until it has been passed.
        before, later = later, race.lost > race.won
        step = max(0.012, step * (1.5 if later is before else 0.5))
        delay = max(0.0, delay + (step if later else -step))
    record_property("races", str(races))
    # Real races: each side was first now and then.
    assert any(race.won for race in races), races
    assert any(race.lost for race in races), races
    assert warden(rig, "audit", "verify").returncode == 0
    log = records(rig)
    intents = {one["seq"] for one in log if one["action"] == "intent"}
    assert intents == {one["op"] for one in log if one["action"] == "result"}


def one_race(rig: Rig, names: list[str], delay: float) -> Race:
    script = f"{jobs.WITNESS}[ -e {rig.base}/signals/{names[0]} ] || sleep 600\n{jobs.FINISH}"
    debris = strand_all(rig, names, script)
    with open(f"{rig.base}/signals/{names[0]}", "w", encoding="ascii"):
        pass
    sweep = ns.start(
        rig.namespace, command(rig, "scan", "--yes", *AT_ONCE), log=f"{rig.base}/logs/scan"
    )
    time.sleep(delay)
    client = jobs.start(rig, names, script, "racing")
    client.process.wait(60)
    assert sweep.process.wait(60) in {0, 5}, ns.read(f"{rig.base}/logs/scan")
    said = jobs.log_of(rig, "racing")
    results = [won_or_lost(rig, name, debris[name], said) for name in names]
    repair_and_build(rig, names, script)
    return Race(results.count("won"), results.count("lost"), said.count("waiting for lock"))


def strand_all(rig: Rig, names: list[str], script: str) -> dict[str, str]:
    """Name to what lies at its output after all builds were interrupted: `uid:inode`."""
    first = sorted(rig.build_users, key=lambda uid: int(rig.build_users[uid][6:]))[: len(names)]
    with jobs.users_held(rig, first):
        client = jobs.start(rig, names, script, "stranding")
        builders = jobs.wait_for_builders(rig, names, "stranding", client)
        assert not {builder.uid for builder in builders} & {*first}
        ns.wait_until(
            lambda: all(os.path.lexists(rig.outside(one.out)) for one in builders), "outputs"
        )
        ns.kill(rig.namespace, SIGINT, client.pid)
        assert client.process.wait(20) != 0
    seen = {name: os.lstat(rig.outside(b.out)) for name, b in zip(names, builders, strict=True)}
    return {name: f"{status.st_uid}:{status.st_ino}" for name, status in seen.items()}


def won_or_lost(rig: Rig, name: str, debris: str, said: str) -> str:
    """Which it was, by evidence; anything else is a build that storewarden has hurt."""
    builder = jobs.witness(said, name)
    assert builder is not None, f"{name} was never begun:\n{said}"
    made = [path for path in valid_paths(rig) if path.endswith(f"-{name}")]
    if made:
        [path] = made
        assert builder.saw == "nothing", f"{name} was built over {builder.saw}"
        assert os.listdir(rig.outside(path)) == ["result"]
        return "won"
    # It held its lock from before it saw the debris until after it had failed.
    told = f"{name} failed:\n{said}\n{ns.read(f'{rig.base}/logs/scan')}"
    assert builder.saw == debris, told
    assert builder.saw_at_end == debris, told
    assert "Permission denied" in said, told
    return "lost"


def repair_and_build(rig: Rig, names: list[str], script: str) -> None:
    """What the race left is debris like any other: gone after one sweep, and all can be built."""
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    words = jobs.build_words(rig, names, script)
    done = ns.run(rig.namespace, words, user=rig.user)
    assert done.returncode == 0, done.stderr
