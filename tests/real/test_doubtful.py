# SPDX-License-Identifier: MIT
"""Nix registers what a build made on the remains of another: the service says which path it is."""

import pytest

from real import namespace as ns
from real.builds import Interrupt, stranded
from real.doubt import (
    assert_forgotten_when_it_comes_out_the_same,
    assert_ordinary_builds_are_never_told_of,
    assert_told_until_it_is_replaced,
    build_on_remains,
    watcher_in,
)
from real.rig import Rig


@pytest.mark.parametrize("how", [Interrupt.SIGINT_CLIENT, Interrupt.BUILDER_FAILS])
def test_what_was_built_on_remains_is_told_until_it_is_replaced(rig: Rig, how: Interrupt) -> None:
    with watcher_in(rig) as watcher:
        assert_told_until_it_is_replaced(rig, watcher, how)


def test_what_comes_out_the_same_when_built_again_is_forgotten(rig: Rig) -> None:
    with watcher_in(rig) as watcher:
        assert_forgotten_when_it_comes_out_the_same(rig, watcher)


def test_it_is_known_after_a_restart_of_the_service(rig: Rig) -> None:
    with watcher_in(rig) as watcher:
        path = build_on_remains(rig, stranded(rig, "job"))
        ns.wait_until(lambda: watcher.doubtful == [path], f"the doubt:\n{watcher.said()}")
    with watcher_in(rig) as watcher:
        assert watcher.doubtful == [path]
        other = stranded(rig, "other")
    with watcher_in(rig) as watcher:  # what lies there when it begins is remains as well
        second = build_on_remains(rig, other)
        ns.wait_until(lambda: set(watcher.doubtful) == {path, second}, watcher.said())


def test_builds_that_end_well_are_never_told_of(rig: Rig) -> None:
    with watcher_in(rig) as watcher:
        assert_ordinary_builds_are_never_told_of(rig, watcher, 0)
