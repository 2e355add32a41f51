# SPDX-License-Identifier: MIT
"""Whatever is alive stays as it is: builds of every kind, their orphans and their stray children.

The tests of the private rig are run here as well, on each version.
"""

import os
from signal import SIGKILL

from lab import jobs
from real import namespace as ns
from real.builds import let_finish, start_build, stranded
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.test_live_builds import (
    assert_ended_well,
    test_a_live_output_is_kept_and_its_lock_and_the_holder_of_it_are_named,
    test_builds_that_start_and_end_during_sweeps_all_end_well,
    test_debris_of_a_build_user_who_builds_again_goes_and_that_build_goes_on,
)
from real.test_main_job import test_a_builder_that_outlived_its_worker_is_left_alone_until_it_ends
from real.warden import Report, finding, scan, statuses

SHARED = (
    test_a_live_output_is_kept_and_its_lock_and_the_holder_of_it_are_named,
    test_builds_that_start_and_end_during_sweeps_all_end_well,
    test_debris_of_a_build_user_who_builds_again_goes_and_that_build_goes_on,
    test_a_builder_that_outlived_its_worker_is_left_alone_until_it_ends,
)
TEN = [(kind, box) for kind in ("ca", "ia", "fod") for box in (False, True)] * 2
SWEEPS = 20
EVERY_KIND = tuple(f"--kind={kind}" for kind in ("output", "lock", "chroot"))
# A child in a session of its own, that goes on when its parent is killed.
DETACHED = f"""{jobs.WITNESS}
setsid sh -c 'while ! [ -e "$0" ]; do echo more >> "$1/late"; sleep 0.1; done' END "$out" &
exec sleep 600
"""


def test_ten_live_builds_with_and_without_a_sandbox_are_untouched_by_twenty_sweeps(
    rig: Rig,
) -> None:
    dead = stranded(rig, "dead")
    recipes = [
        Recipe(f"live-{number}", kind, ticks=10_000, sandbox=box)
        for number, (kind, box) in enumerate(TEN[:10])
    ]
    # Builds of that user are another test's.
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{dead.uid}"):
        live = [start_build(rig, recipe) for recipe in recipes]
    theirs = inodes(rig, unregistered(rig) - dead.entries)
    for sweep in range(SWEEPS):
        outcomes = statuses(scan(rig, "--yes", *EVERY_KIND))
        removed = {path for path, status in outcomes.items() if status == "removed"}
        assert removed == (dead.entries if sweep == 0 else set())
        assert inodes(rig, unregistered(rig)) == theirs
        assert all(build.client.process.poll() is None for build in live)
    for build in live:
        let_finish(rig, build.recipe)
    # Sweeps go on while the outputs are moved, renamed and registered.
    while any(build.client.process.poll() is None for build in live):
        scan(rig, "--yes", *EVERY_KIND)
    for build in live:
        assert_ended_well(rig, build)


def test_what_a_detached_child_of_a_killed_builder_writes_into_is_kept_until_the_child_ends(
    rig: Rig,
) -> None:
    end = f"{rig.base}/signals/end"
    client = jobs.start(rig, ["detached"], DETACHED.replace("END", end), "detached")
    [builder] = jobs.wait_for_builders(rig, ["detached"], "detached", client)
    late = rig.outside(f"{builder.out}/late")
    ns.wait_until(lambda: os.path.exists(late), "the detached child")
    by_pid = {one.pid: one for one in ns.processes(rig.namespace)}
    # The worker first: a worker that lives would end all processes of its build user.
    ns.kill(rig.namespace, SIGKILL, by_pid[builder.pid].parent, builder.pid)
    assert client.process.wait(20) != 0
    size = os.path.getsize(late)
    ns.wait_until(lambda: os.path.getsize(late) > size, "more from the detached child")

    left = unregistered(rig)
    report = scan(rig, "--yes")
    assert_kept_for_a_process(report, builder.out)
    assert unregistered(rig) == left
    with open(end, "w", encoding="ascii"):
        pass
    ns.wait_until(
        lambda: not any(p.uid == builder.uid for p in ns.processes(rig.namespace)),
        "the child's end",
    )
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(left, "removed")


def assert_kept_for_a_process(report: Report, path: str) -> None:
    found = finding(report, path)
    assert found["verdict"] == "keep"
    assert any("process" in reason for reason in found["reasons"]), found["reasons"]


def uids(rig: Rig) -> set[int]:
    return {process.uid for process in ns.processes(rig.namespace)}


def inodes(rig: Rig, paths: set[str]) -> dict[str, int]:
    return {path: os.lstat(rig.outside(path)).st_ino for path in paths}
