# SPDX-License-Identifier: MIT
"""`storewarden run`: a wedged build heals by itself, one that fails by itself is run once."""

import re

from real import namespace as ns
from real.builds import Interrupt, let_finish, start_build, strand, stranded
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.running import AGAIN, as_user, assert_healed, nix_build, run_wedged, words


def test_a_build_that_fails_on_debris_is_healed_and_run_once_more(rig: Rig) -> None:
    build = stranded(rig, "wedged")
    let_finish(rig, build.recipe)
    asked = words(rig, as_user(rig, nix_build(rig, build.recipe)))
    assert_healed(rig, build, run_wedged(rig, build.uid, asked))
    assert unregistered(rig) == set()


def test_a_build_that_fails_by_itself_is_not_run_again(rig: Rig) -> None:
    build = start_build(rig, Recipe("failing"))
    strand(rig, build, Interrupt.BUILDER_FAILS)
    done = ns.run(rig.namespace, words(rig, as_user(rig, nix_build(rig, build.recipe))))
    assert done.returncode != 0
    assert len(set(re.findall(r"builder uid=[0-9]+ pid=([0-9]+)", done.stderr))) == 1, done.stderr
    assert AGAIN not in done.stderr
    assert unregistered(rig) == build.entries
