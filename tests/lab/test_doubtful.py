# SPDX-License-Identifier: MIT
"""A path that was built on the remains of an interrupted build is told of; no other ever is.

`STOREWARDEN_LAB_SOAK` is for how many seconds ordinary builds are made.
"""

import json
import os
from collections.abc import Callable

import pytest

from lab.machine import Machine, control
from lab.service import WATCHER, journal, run, write_config
from lab.test_service import status
from real import namespace as ns
from real.builds import Interrupt
from real.doubt import (
    REPORT,
    Watcher,
    assert_forgotten_when_it_comes_out_the_same,
    assert_ordinary_builds_are_never_told_of,
    assert_told_until_it_is_replaced,
)

SECONDS = float(os.environ.get("STOREWARDEN_LAB_SOAK", "20"))


@pytest.fixture
def watcher(service: Machine) -> Watcher:
    """The installed service, once it only reports."""
    rig = service.rig
    write_config(rig, f"{REPORT}\n")
    control(rig, "reload", WATCHER)
    ns.wait_until(lambda: status(rig)["mode"] == "report", "the configuration")
    return Watcher(
        lambda: status(rig),
        lambda: journal(rig),
        lambda *words: run(rig, ["storewarden", *words], rig.user),
    )


@pytest.mark.parametrize(
    "how", [Interrupt.SIGINT_CLIENT, Interrupt.SIGKILL_CLIENT], ids=lambda how: how.value
)
def test_what_was_built_on_remains_is_told_until_it_is_replaced(
    service: Machine, watcher: Watcher, how: Interrupt
) -> None:
    assert_told_until_it_is_replaced(service.rig, watcher, how)


def test_what_comes_out_the_same_when_built_again_is_forgotten(
    service: Machine, watcher: Watcher
) -> None:
    assert_forgotten_when_it_comes_out_the_same(service.rig, watcher)


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_ordinary_builds_are_never_told_of(
    service: Machine, watcher: Watcher, record_property: Callable[[str, object], None]
) -> None:
    builds = assert_ordinary_builds_are_never_told_of(service.rig, watcher, SECONDS)
    counted = {"suite": service.suite, "seconds": round(SECONDS), "ordinary builds": builds}
    record_property("tally", json.dumps(counted | {"told": 0}))
