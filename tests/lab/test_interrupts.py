# SPDX-License-Identifier: MIT
"""The main job after every interrupt: what was stranded is named, removed, and builds again."""

import pytest

from lab.interrupts import Outage, end_orphan, strand
from lab.machine import Machine
from real.builds import Interrupt, builder_lives, start_build, stranded
from real.recipes import Recipe
from real.rig import Rig
from real.story import (
    assert_an_orphaned_builder_is_left_alone,
    assert_builds_exactly_its_own_files,
    assert_names_it,
    assert_wedged_named_removed_and_built_again,
)
from real.warden import scan, statuses

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
        assert_an_orphaned_builder_is_left_alone(rig, build)
        end_orphan(rig, build)
    assert_wedged_named_removed_and_built_again(rig, build, rig.user)


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
