# SPDX-License-Identifier: MIT
"""Debris that wedges nothing, but is debris: of input-addressed, fixed-output, sandboxed builds."""

import os

import pytest

from lab import jobs
from lab.interrupts import Outage, end_orphan, interrupt, strand
from lab.machine import Machine
from real import namespace as ns
from real.builds import Build, Interrupt, builder_lives, retry, start_build
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.story import assert_audit_log_tells
from real.warden import Report, finding, records, scan, statuses

WAYS: list[Interrupt | Outage] = [
    Interrupt.SIGINT_CLIENT,
    Interrupt.SIGKILL_WORKER,
    Interrupt.BUILDER_FAILS,
    Outage.UNIT_KILLED,
    Outage.POWER_CUT,
]
KINDS = {"input addressed": "ia", "fixed output": "fod"}


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.value)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_debris_of_a_build_that_is_not_content_addressed_is_named_and_removed(
    machine: Machine, kind: str, how: Interrupt | Outage
) -> None:
    build = start_build(machine.rig, Recipe("job", kind))
    rig = strand(machine, build, how)
    end_any_orphan(rig, build)
    for user in (rig.user, "root"):
        report = scan(rig, "--dry-run", user=user)
        assert {one["path"] for one in report["findings"]} == build.entries
        output = finding(report, build.outputs["out"])
        assert (output["kind"], output["owner"]["uid"]) == ("output", build.uid)
        # Only the database tells whose it is: no lock is called after the derivation.
        if not says_it_cannot_see(report):
            assert (output["deriver"], output["output"]) == (build.drv, "out")
        assert finding(report, build.locks["out"])["kind"] == "lock"
    assert not says_it_cannot_see(report)
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()
    assert retry(rig, build.recipe, not_uid=build.uid).returncode == 0
    assert_audit_log_tells(rig, build)


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.value)
@pytest.mark.parametrize("kind", ["ca", "ia", "fod"])
def test_debris_of_a_sandboxed_build_is_named_and_removed_its_chroot_where_asked_for(
    machine: Machine, kind: str, how: Interrupt | Outage
) -> None:
    build = start_build(machine.rig, Recipe("job", kind, sandbox=True))
    rig = interrupt(machine, build, how)
    end_any_orphan(rig, build)
    left = unregistered(rig)
    assert left, "there is nothing to look at"
    seen = {one["path"] for one in scan(rig, "--dry-run", user=rig.user)["findings"]}
    assert seen >= {path for path in left if not path.endswith(".chroot")}
    report = scan(rig, "--dry-run")
    assert {one["path"] for one in report["findings"]} == left
    kinds = {path: finding(report, path)["kind"] for path in left}
    assert kinds == {path: kind_of(build, path) for path in left}

    chroots = {path for path in left if kinds[path] == "chroot"}
    assert bool(chroots) == (how in LEAVING_A_CHROOT)
    assert_removes_the_rest(rig, left, chroots)
    if chroots:
        asked = statuses(scan(rig, "--yes", "--kind", "chroot", "--kind", "lock"))
        assert {path for path, status in asked.items() if status == "removed"} >= chroots
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    assert retry(rig, build.recipe).returncode == 0
    removed = {one["name"] for one in records(rig) if one.get("status") == "removed"}
    assert removed == {os.path.basename(path) for path in left}


def test_what_a_build_left_that_ended_well_and_made_what_was_there_already_is_removed(
    rig: Rig,
) -> None:
    """Nix 2.8 and 2.26 leave it to root, with no lock: a wedge once its twin has been deleted."""
    script = 'mkdir -p "$out"; echo same > "$out/result"'
    one, other = (
        jobs.build_words(rig, ["twin"], script, "--argstr", "tag", tag) for tag in ("one", "other")
    )
    done = [ns.run(rig.namespace, words, user=rig.user) for words in (one, other)]
    assert [build.returncode for build in done] == [0, 0], done
    assert done[0].stdout == done[1].stdout
    left = unregistered(rig)
    if rig.nix_version >= (2, 34):
        assert left == set()
        return
    [path] = left
    found = finding(scan(rig, "--dry-run"), path)
    assert (found["kind"], found["output"]) == ("output", "out")
    assert statuses(scan(rig, "--yes")) == {path: "removed"}
    deleted = ns.run(rig.namespace, ["nix-store", "--delete", done[0].stdout.strip()])
    assert deleted.returncode == 0, deleted.stderr
    again = ns.run(rig.namespace, other, user=rig.user)
    assert again.returncode == 0, again.stderr


LEAVING_A_CHROOT = {Interrupt.SIGKILL_WORKER, Outage.UNIT_KILLED, Outage.POWER_CUT}


def assert_removes_the_rest(rig: Rig, left: set[str], chroots: set[str]) -> None:
    """Without being asked for, a chroot is only reported; outputs and locks are removed."""
    report: Report = scan(rig, "--yes")
    assert chroots <= {one["path"] for one in report["findings"]}
    assert not chroots & statuses(report).keys()
    outputs = {p for p in left - chroots if not p.endswith(".lock")}
    assert unregistered(rig) & outputs == set()
    assert chroots <= unregistered(rig)


def says_it_cannot_see(report: Report) -> bool:
    """An ordinary user may open the database only while somebody else has it open."""
    return any("cannot open the Nix database" in note for note in report["notes"])


def kind_of(build: Build, path: str) -> str:
    if path == f"{build.drv}.chroot":
        return "chroot"
    return "lock" if path in build.locks.values() else "output"


def end_any_orphan(rig: Rig, build: Build) -> None:
    if builder_lives(rig, build):
        assert rig.nix_version < (2, 34)
        end_orphan(rig, build)
