# SPDX-License-Identifier: MIT
"""A path that was built on the remains of an interrupted build is told of; no other ever is.

`STOREWARDEN_LAB_SOAK` is for how many seconds ordinary builds are made.
"""

import json
import os
from collections.abc import Callable

import pytest

from lab.machine import Machine
from real.builds import Interrupt
from real.doubt import (
    assert_forgotten_when_it_comes_out_the_same,
    assert_ordinary_builds_are_never_told_of,
    assert_told_until_it_is_replaced,
)
from real.rig import Rig

SECONDS = float(os.environ.get("STOREWARDEN_LAB_SOAK", "20"))


@pytest.mark.parametrize(
    "how", [Interrupt.SIGINT_CLIENT, Interrupt.SIGKILL_CLIENT], ids=lambda how: how.value
)
def test_what_was_built_on_remains_is_told_until_it_is_replaced(rig: Rig, how: Interrupt) -> None:
    assert_told_until_it_is_replaced(rig, how)


def test_what_comes_out_the_same_when_built_again_is_forgotten(rig: Rig) -> None:
    assert_forgotten_when_it_comes_out_the_same(rig)


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_ordinary_builds_are_never_told_of(
    machine: Machine, record_property: Callable[[str, object], None]
) -> None:
    builds = assert_ordinary_builds_are_never_told_of(machine.rig, SECONDS)
    counted = {"suite": machine.suite, "seconds": round(SECONDS), "ordinary builds": builds}
    record_property("tally", json.dumps(counted | {"told": 0}))
