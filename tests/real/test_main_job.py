# SPDX-License-Identifier: MIT
"""The reason why storewarden exists: an interrupted build, the wedge it leaves, and its repair."""

import pytest

from real.builds import Interrupt, builder_lives, let_finish, start_build, strand
from real.namespace import wait_until
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.story import (
    assert_an_orphaned_builder_is_left_alone,
    assert_builds_exactly_its_own_files,
    assert_wedged_named_removed_and_built_again,
)
from real.warden import AT_ONCE, scan, warden

CASES = [
    (Interrupt.SIGINT_CLIENT, ("out",)),
    (Interrupt.SIGINT_CLIENT, ("out", "dev")),
    (Interrupt.SIGKILL_CLIENT, ("out",)),
    (Interrupt.BUILDER_FAILS, ("out",)),
]


@pytest.mark.parametrize(("how", "outputs"), CASES)
def test_what_an_interrupted_build_stranded_is_named_removed_and_builds_again(
    rig: Rig, how: Interrupt, outputs: tuple[str, ...]
) -> None:
    build = start_build(rig, Recipe("job", outputs=outputs))
    strand(rig, build, how)
    assert_wedged_named_removed_and_built_again(rig, build, "nobody")


def test_a_builder_that_outlived_its_worker_is_left_alone_until_it_ends(rig: Rig) -> None:
    build = start_build(rig, Recipe("orphan"))
    strand(rig, build, Interrupt.SIGKILL_WORKER)
    if builder_lives(rig, build):
        assert rig.nix_version < (2, 34)
        assert_an_orphaned_builder_is_left_alone(rig, build)
        let_finish(rig, build.recipe)
        wait_until(lambda: not builder_lives(rig, build), "the end of the builder")
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    assert_builds_exactly_its_own_files(rig, build)


def test_debris_younger_than_the_age_asked_for_is_kept(rig: Rig) -> None:
    build = start_build(rig, Recipe("young"))
    strand(rig, build)
    done = warden(rig, "scan", "--yes", "--min-age", "1h")
    assert done.returncode in {0, 5}, done.stderr
    assert unregistered(rig) == build.entries
    assert warden(rig, "scan", "--yes", *AT_ONCE).returncode == 0
    assert unregistered(rig) == set()
