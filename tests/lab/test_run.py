# SPDX-License-Identifier: MIT
"""`storewarden run`: a wedged build heals by itself, one that fails by itself is run once."""

import re

from real import namespace as ns
from real.builds import Interrupt, start_build, strand
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.running import AGAIN, as_user, assert_a_wedged_build_is_healed, nix_build, words


def test_a_build_that_fails_on_debris_is_healed_and_run_once_more(rig: Rig) -> None:
    assert_a_wedged_build_is_healed(rig)


def test_a_build_that_fails_by_itself_is_not_run_again(rig: Rig) -> None:
    build = start_build(rig, Recipe("failing"))
    strand(rig, build, Interrupt.BUILDER_FAILS)
    done = ns.run(rig.namespace, words(rig, as_user(rig, nix_build(rig, build.recipe))))
    assert done.returncode != 0
    assert len(set(re.findall(r"builder uid=[0-9]+ pid=([0-9]+)", done.stderr))) == 1, done.stderr
    assert AGAIN not in done.stderr
    assert unregistered(rig) == build.entries
