# SPDX-License-Identifier: MIT
"""The main job after every interrupt: what was stranded is named, removed, and builds again."""

import pytest

from lab.interrupts import Outage, end_orphan, strand
from lab.machine import Machine
from real.builds import Interrupt, builder_lives, retry, start_build, stranded
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered
from real.story import (
    assert_audit_log_tells,
    assert_builds_exactly_its_own_files,
    assert_its_log_tells,
    assert_names_it,
)
from real.warden import finding, scan, statuses

WAYS = [*Interrupt, *Outage]
OUTPUTS = {"one output": ("out",), "two outputs": ("out", "dev")}


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.value)
@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_what_an_interrupted_build_stranded_is_named_removed_and_builds_again(
    machine: Machine, outputs: tuple[str, ...], how: Interrupt | Outage
) -> None:
    build = start_build(machine.rig, Recipe("job", outputs=outputs))
    rig = strand(machine, build, how)
    if how is Interrupt.SIGKILL_WORKER and builder_lives(rig, build):
        assert rig.nix_version < (2, 34)
        assert_an_orphaned_builder_is_left_alone(rig, build.entries, build.outputs["out"])
        end_orphan(rig, build)
    wedged = retry(rig, build.recipe, not_uid=build.uid)
    assert wedged.returncode != 0
    assert "Permission denied" in wedged.stderr
    assert_its_log_tells(wedged.stderr, build)

    before = picture(rig.store)
    report = scan(rig, "--dry-run", user=rig.user)
    assert picture(rig.store) == before, "a dry run changed the store"
    assert {one["path"] for one in report["findings"]} == build.entries
    assert_names_it(rig, report, build)

    removed = scan(rig, "--yes")
    assert statuses(removed) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()

    assert_builds_exactly_its_own_files(rig, build)
    assert_audit_log_tells(rig, build)


# What Nix calls things of its own, and what a derivation may be called as well.
NAMES = {
    "as a check's": "foo.check",
    "as a temporary": "foo.tmp",
    "as what was replaced": "foo.old-1-2",
    "as a chroot": "foo.drv.chroot",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_what_an_interrupted_build_stranded_is_removed_whatever_it_is_called(
    rig: Rig, name: str
) -> None:
    build = stranded(rig, name)
    report = scan(rig, "--dry-run")
    assert_names_it(rig, report, build)
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed"), report
    assert_builds_exactly_its_own_files(rig, build)


def assert_an_orphaned_builder_is_left_alone(rig: Rig, entries: set[str], output: str) -> None:
    """No lock is held by anyone: only the process itself tells that its output is wanted."""
    report = scan(rig, "--yes")
    found = finding(report, output)
    assert found["verdict"] == "keep"
    assert any("process" in reason for reason in found["reasons"]), found["reasons"]
    assert statuses(report).get(output) in {None, "kept"}
    assert unregistered(rig) == entries
