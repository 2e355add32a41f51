# SPDX-License-Identifier: MIT
"""Nix registers what a build made on the remains of another: the service says which path it is."""

import pytest

from real import namespace as ns
from real.builds import Interrupt, stranded
from real.doubt import (
    REPORT,
    assert_forgotten_when_it_comes_out_the_same,
    assert_ordinary_builds_are_never_told_of,
    assert_told_until_it_is_replaced,
    build_on_remains,
    doubtful,
)
from real.rig import Rig
from real.watching import service


@pytest.mark.parametrize("how", [Interrupt.SIGINT_CLIENT, Interrupt.BUILDER_FAILS])
def test_what_was_built_on_remains_is_told_until_it_is_replaced(rig: Rig, how: Interrupt) -> None:
    assert_told_until_it_is_replaced(rig, how)


def test_what_comes_out_the_same_when_built_again_is_forgotten(rig: Rig) -> None:
    assert_forgotten_when_it_comes_out_the_same(rig)


def test_it_is_known_after_a_restart_of_the_service(rig: Rig) -> None:
    with service(rig, REPORT) as watcher:
        path = build_on_remains(rig, stranded(rig, "job"))
        ns.wait_until(lambda: doubtful(watcher) == [path], f"the doubt:\n{watcher.said}")
    with service(rig, REPORT) as watcher:
        assert doubtful(watcher) == [path]
        # What lay there when it began is not forgotten either.
        other = stranded(rig, "other")
    with service(rig, REPORT) as watcher:
        second = build_on_remains(rig, other)
        ns.wait_until(lambda: set(doubtful(watcher)) == {path, second}, watcher.said)


def test_builds_that_end_well_are_never_told_of(rig: Rig) -> None:
    assert_ordinary_builds_are_never_told_of(rig, 0)
