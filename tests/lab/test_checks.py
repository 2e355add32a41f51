# SPDX-License-Identifier: MIT
"""Builds of what is there already, to compare it: `--check`. Nix redirects them to another path.

It deletes what lies at that path before each such build, under the lock of what is replaced. So
there is a live build at a path that was debris a moment ago, with a removal under way.
`STOREWARDEN_LAB_RACES` is how often each of the two is tried against the other.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL

import pytest

from lab import engine, jobs
from real import namespace as ns
from real.rig import Rig, unregistered, valid_paths
from real.warden import finding, records, scan, statuses

RACES = int(os.environ.get("STOREWARDEN_LAB_RACES", "3"))
KINDS = {"input addressed": "ia", "floating": "ca"}
# As long as it is not told to end. The first fails when its output is away for a moment, the
# second makes a new one then and goes on there.
WRITES = 'while ! [ -e END ]; do : > "$out/more"; done\nrm -f "$out/more"\n'
MAKES = 'while ! [ -e END ]; do mkdir -p "$out"; done\n'
BUILDERS = {"one that writes": WRITES, "one that makes its output again and again": MAKES}


@dataclass(frozen=True, slots=True)
class Checked:
    """A derivation that was built, and can be again for as long as a test likes."""

    rig: Rig
    kind: str
    script: str
    drv: str
    path: str

    @property
    def lock(self) -> str:
        """What Nix holds while it builds this anew."""
        return f"{self.path}.lock" if self.kind == "ia" else f"{self.drv}.out.lock"

    @property
    def end(self) -> str:
        """As long as that is there its builders end."""
        return f"{self.rig.base}/signals/end"

    def start(self, log: str) -> ns.Child:
        """Build it once more; as one who may say how often the daemon looks at a lock."""
        words = jobs.build_words(self.rig, ["job"], self.script, "--argstr", "kind", self.kind)
        words += ["--check", "--option", "build-poll-interval", "1"]
        place = f"{self.rig.base}/logs/{log}"
        return ns.start(self.rig.namespace, words, log=place, user="trusty")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """While its builders end."""
        Path(self.end).touch()
        yield
        os.unlink(self.end)


def built(rig: Rig, kind: str, loop: str) -> Checked:
    end = f"{rig.base}/signals/end"
    script = f"{jobs.WITNESS}{loop.replace('END', end)}{jobs.FINISH}"
    words = jobs.build_words(rig, ["job"], script, "--argstr", "kind", kind)
    Path(end).touch()
    done = ns.run(rig.namespace, words, user=rig.user)
    os.unlink(end)
    assert done.returncode == 0, done.stderr
    path = done.stdout.strip()
    asked = ns.run(rig.namespace, ["nix-store", "--query", "--deriver", path])
    assert asked.returncode == 0, asked.stderr
    return Checked(rig, kind, script, asked.stdout.strip(), path)


def stranded(checked: Checked, log: str = "stranding") -> jobs.Witness:
    """A check that was interrupted, and left its output and its lock."""
    rig = checked.rig
    client = checked.start(log)
    [builder] = jobs.wait_for_builders(rig, ["job"], log, client)
    ns.wait_until(lambda: os.path.lexists(rig.outside(builder.out)), "its output")
    [worker] = [one.parent for one in ns.processes(rig.namespace) if one.pid == builder.pid]
    ns.kill(rig.namespace, SIGINT, client.pid)
    assert client.process.wait(20) != 0
    ended = {builder.pid, worker}
    ns.wait_until(lambda: not ended & {p.pid for p in ns.processes(rig.namespace)}, "its end")
    assert builder.out != checked.path
    assert {builder.out, checked.lock} <= unregistered(rig)
    return builder


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_debris_of_a_check_is_named_and_removed(rig: Rig, kind: str) -> None:
    checked = built(rig, kind, WRITES)
    valid = valid_paths(rig)
    builder = stranded(checked)
    found = finding(scan(rig, "--dry-run"), builder.out)
    assert (found["kind"], found["deriver"], found["output"]) == ("output", checked.drv, "out")
    removed = scan(rig, "--yes")
    assert statuses(removed) == dict.fromkeys((builder.out, checked.lock), "removed"), removed
    assert unregistered(rig) == set()
    assert valid_paths(rig) == valid
    with checked.ending():
        assert checked.start("again").process.wait(60) == 0, jobs.log_of(rig, "again")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_debris_of_a_check_that_others_may_write_to_goes_when_its_owner_is_idle(
    rig: Rig, kind: str
) -> None:
    checked = built(rig, kind, f'chmod 775 "$out"\n{WRITES}chmod 755 "$out"\n')
    builder = stranded(checked)
    assert os.lstat(rig.outside(builder.out)).st_mode & 0o777 == 0o775
    removed = scan(rig, "--yes")
    assert statuses(removed) == dict.fromkeys((builder.out, checked.lock), "removed"), removed


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_the_copy_that_a_check_left_as_it_was_being_compared_is_removed_and_wedges_no_other(
    rig: Rig, kind: str
) -> None:
    """Nix 2.26 and 2.34 make it of every output; 2.8 of floating ones."""
    checked = built(rig, kind, WRITES)
    builder = stranded(checked)
    copy = f"{builder.out}.tmp"
    os.mkdir(rig.outside(copy))
    removed = scan(rig, "--yes")
    assert statuses(removed).get(copy) == "removed", removed
    assert unregistered(rig) == set()
    with checked.ending():
        assert checked.start("again").process.wait(60) == 0, jobs.log_of(rig, "again")


@pytest.mark.timeout(120 + RACES * 30)
@pytest.mark.parametrize("loop", BUILDERS.values(), ids=BUILDERS.keys())
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_check_that_starts_while_a_removal_is_about_to_move_its_debris_ends_well(
    rig: Rig, kind: str, loop: str
) -> None:
    checked = built(rig, kind, loop)
    valid = valid_paths(rig)
    for number in range(RACES):
        builder = stranded(checked, f"stranding-{number}")
        log = f"racing-{number}"
        with engine.stopped_at(rig, "intended", builder.out):
            client = checked.start(log)
            # It waits for the lock that the removal holds. Where that holds another, it begins.
            ns.wait_until(
                lambda log=log: any(
                    s in jobs.log_of(rig, log) for s in (" begins ", "waiting for")
                ),  # type: ignore[misc]
                "the check to begin or to wait",
            )
        with checked.ending():
            assert client.process.wait(60) == 0, jobs.log_of(rig, log)
        assert not private_directories(rig)
        assert valid_paths(rig) == valid
    assert_every_intent_has_its_result(rig)


def private_directories(rig: Rig) -> list[str]:
    return [name for name in os.listdir(rig.store) if name.startswith("tmp-storewarden-")]


def assert_every_intent_has_its_result(rig: Rig) -> None:
    log = records(rig)
    intents = [one["seq"] for one in log if one["action"] == "intent"]
    assert sorted(intents) == sorted(one["op"] for one in log if one["action"] == "result") != []


def test_a_worker_killed_at_a_check_leaves_debris_that_is_removed(rig: Rig) -> None:
    """Its builder may live on, up to Nix 2.33: kept until that has ended."""
    checked = built(rig, "ca", WRITES)
    client = checked.start("killed")
    [builder] = jobs.wait_for_builders(rig, ["job"], "killed", client)
    [worker] = [one.parent for one in ns.processes(rig.namespace) if one.pid == builder.pid]
    ns.kill(rig.namespace, SIGKILL, worker)
    assert client.process.wait(20) != 0
    if rig.nix_version < (2, 34):
        assert finding(scan(rig, "--yes"), builder.out)["verdict"] == "keep"
        ns.kill(rig.namespace, SIGKILL, builder.pid)
    ns.wait_until(
        lambda: builder.pid not in {p.pid for p in ns.processes(rig.namespace)}, "its end"
    )
    scan(rig, "--yes")
    assert unregistered(rig) == set()
