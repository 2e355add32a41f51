# SPDX-License-Identifier: MIT
"""The worst that storewarden could do is to hurt a build that is alive. It is tried here."""

import os

import pytest

from real import namespace as ns
from real.builds import Build, let_finish, start_build, stranded
from real.recipes import Recipe
from real.rig import Rig, unregistered, valid_paths
from real.warden import finding, scan, statuses

KINDS = ["ca"] * 4 + ["ia"] * 3 + ["fod"] * 3
SWEEPS = 20


@pytest.mark.slow
def test_ten_live_builds_are_untouched_by_twenty_sweeps_that_remove_dead_debris(rig: Rig) -> None:
    dead = stranded(rig, "dead")
    live = start_live_builds(rig, not_uid=dead.uid)
    before = inodes(rig, live)
    for sweep in range(SWEEPS):
        outcomes = statuses(scan(rig, "--yes"))
        removed = {path for path, status in outcomes.items() if status == "removed"}
        assert removed == (dead.entries if sweep == 0 else set())
        assert inodes(rig, live) == before
        assert all(build.client.process.poll() is None for build in live)
    assert unregistered(rig) == {path for build in live for path in build.entries}

    for build in live:
        let_finish(rig, build.recipe)
    # Sweeps go on while the outputs are moved, renamed and registered.
    while any(build.client.process.poll() is None for build in live):
        scan(rig, "--yes")
    for build in live:
        assert_ended_well(rig, build)


def test_a_live_output_is_kept_and_its_lock_and_the_holder_of_it_are_named(rig: Rig) -> None:
    live = [start_build(rig, Recipe(f"live-{kind}", kind)) for kind in ("ca", "ia", "fod")]
    report = scan(rig, "--dry-run")
    for build in live:
        found = finding(report, build.outputs["out"])
        assert found["verdict"] == "keep"
        held = {lock["path"]: lock["holder"] for lock in found["locks"] if lock["held"] == "yes"}
        assert held[build.locks["out"]]["pid"] == build.worker
        assert finding(report, build.locks["out"])["verdict"] == "keep"


def test_debris_of_a_build_user_who_builds_again_goes_and_that_build_goes_on(rig: Rig) -> None:
    # The lock of what lies there is nobody's, so no build can be the one that writes into it.
    dead = stranded(rig, "dead")
    live = start_build(rig, Recipe("live"))
    assert live.uid == dead.uid
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(dead.entries, "removed")
    assert unregistered(rig) == live.entries
    let_finish(rig, live.recipe)
    assert_ended_well(rig, live)


@pytest.mark.slow
def test_builds_that_start_and_end_during_sweeps_all_end_well(rig: Rig) -> None:
    recipes = [
        Recipe(f"quick-{number}-{kind}", kind, ticks=3)
        for number in range(6)
        for kind in ("ca", "ia", "fod")
    ]
    for recipe in recipes:
        build = start_build(rig, recipe)
        while build.client.process.poll() is None:
            scan(rig, "--yes")
        assert_ended_well(rig, build)


def start_live_builds(rig: Rig, *, not_uid: int) -> list[Build]:
    """Ten builds that go on until they are told to end, none as that build user."""
    # Builds of that user are another test's.
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{not_uid}"):
        return [
            start_build(rig, Recipe(f"live-{number}-{kind}", kind, ticks=10_000))
            for number, kind in enumerate(KINDS)
        ]


def inodes(rig: Rig, builds: list[Build]) -> dict[str, int]:
    paths = [path for build in builds for path in build.entries]
    return {path: os.lstat(rig.outside(path)).st_ino for path in paths}


def assert_ended_well(rig: Rig, build: Build) -> None:
    assert build.client.process.wait(60) == 0, ns.read(build.log)
    path = ns.read(build.log).splitlines()[-1]
    assert path in valid_paths(rig)
    assert os.listdir(rig.outside(path)) == ["result"]
