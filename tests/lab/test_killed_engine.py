# SPDX-License-Identifier: MIT
"""storewarden killed at each of its steps: the next run finishes or puts back, and the log tells.

And stopped there for a while, with a build of the same derivation beside it.
"""

import pytest

from lab import engine
from real import namespace as ns
from real.builds import Build, let_finish, stranded
from real.namespace import read, wait_until
from real.recipes import arguments
from real.rig import Rig, picture, unregistered, valid_paths
from real.story import assert_builds_exactly_its_own_files
from real.warden import AT_ONCE, Report, records, warden

KILLED = [("output", step) for step in engine.STEPS]
KILLED += [("lock", step) for step in engine.OF_A_LOCK]


@pytest.mark.parametrize(("kind", "step"), KILLED, ids=str)
def test_the_engine_is_killed_and_the_next_run_ends_what_it_began(
    rig: Rig, kind: str, step: str
) -> None:
    build = stranded(rig, "job")
    outside, valid = picture("/etc", f"{rig.base}/outside"), valid_paths(rig)
    target = build.outputs["out"] if kind == "output" else build.locks["out"]
    if kind == "lock":
        clear_the_way_to_a_lock(rig, build)
    engine.killed_at(rig, step, target)
    # The log of a removal that was killed is sound as well, and the intent was in it first.
    open_intents = {one["seq"] for one in records(rig) if one["action"] == "intent"}
    open_intents -= {one["op"] for one in records(rig) if one["action"] == "result"}
    assert len(open_intents) == (0 if step == "proved" else 1)

    done = warden(rig, "scan", "--yes", *AT_ONCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unregistered(rig) == set()
    assert valid_paths(rig) == valid
    assert picture("/etc", f"{rig.base}/outside") == outside
    assert_every_intent_has_its_result(records(rig))
    assert_builds_exactly_its_own_files(rig, build)


HELD = {"proved", "intended", "unchanged", "taken"}


@pytest.mark.parametrize("step", engine.STEPS)
def test_a_build_that_starts_while_a_removal_stands_at_a_step_ends_well(
    rig: Rig, step: str
) -> None:
    build = stranded(rig, "job")
    let_finish(rig, build.recipe)
    before = valid_paths(rig)
    log = f"{rig.base}/logs/next"
    with engine.stopped_at(rig, step, build.outputs["out"]):
        words = ["nix-build", "--no-out-link", *arguments(rig, build.recipe)]
        client = ns.start(rig.namespace, words, log=log, user=rig.user)
        if step in HELD:
            # It is the path lock that it waits for, and its debris is untouched meanwhile.
            wait_until(lambda: "waiting for" in read(log), "the build to wait")
            assert client.process.poll() is None
        else:
            # The tree lies aside, and no lock of Nix's is held: nobody waits for a purge.
            assert client.process.wait(30) == 0, read(log)
    assert client.process.wait(30) == 0, read(log)
    [made] = valid_paths(rig) - before
    assert read(rig.outside(f"{made}/result")) == "whole\n"
    assert read(log).splitlines()[-1] == made
    assert_every_intent_has_its_result(records(rig))


def clear_the_way_to_a_lock(rig: Rig, build: Build) -> None:
    """A lock file may go only when what it covers has gone."""
    done = warden(rig, "scan", "--yes", "--kind", "output", *AT_ONCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert unregistered(rig) == {build.locks["out"]}


def assert_every_intent_has_its_result(log: list[Report]) -> None:
    intents = [one["seq"] for one in log if one["action"] == "intent"]
    results = [one["op"] for one in log if one["action"] == "result"]
    assert intents
    assert sorted(intents) == sorted(results)
