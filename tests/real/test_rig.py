# SPDX-License-Identifier: MIT
"""What the other tests rest on: real Nix really strands, and a retry really fails."""

import os

import pytest

from real.builds import Interrupt, builder_lives, retry, stranded
from real.rig import Rig, unregistered


@pytest.mark.parametrize("how", Interrupt, ids=lambda how: how.value)
def test_an_interrupted_build_wedges_every_later_one(rig: Rig, how: Interrupt) -> None:
    build = stranded(rig, "wedge", how)
    if how is Interrupt.SIGKILL_WORKER:
        assert builder_lives(rig, build) == (rig.nix_version < (2, 34))
    assert unregistered(rig) == build.entries
    again = retry(rig, build.recipe, not_uid=build.uid)
    assert again.returncode != 0
    assert "Permission denied" in again.stderr
    assert not os.path.exists(build.drv), "it landed in the store of the machine"
