# SPDX-License-Identifier: MIT
"""A file of a build user's where a lock of Nix's belongs: debris itself, and it goes first."""

import os

import pytest

from helper.bench import alone, audit_is_whole, held_by_another, names, run
from helper.child import needs_root
from storewarden.client import requests_for
from storewarden.scan import sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore

pytestmark = needs_root


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    return place.add_derivation("x")


@pytest.fixture
def scratch(place: ThrowawayStore, derivation: StorePath) -> StorePath:
    return place.strand(derivation)


def plant(place: ThrowawayStore, lock: str, mode: int = 0o666) -> str:
    """Another build user of the same slot lays a file there."""
    if lock not in names(place):
        place.add_lock(lock)
    os.chmod(place.path(lock), mode)
    os.chown(place.path(lock), place.builder + 1, place.builder)
    return lock


@pytest.mark.parametrize("mode", [0o666, 0o600, 0o000, 0o4777])
@pytest.mark.parametrize("which", ["its path's", "its derivation's"])
def test_it_goes_first_and_what_it_covers_in_the_same_run(
    which: str, mode: int, place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    own = which == "its path's"
    lock = plant(place, path_lock(scratch) if own else output_lock(derivation, "out"), mode)
    findings = sweep(place.as_store()).findings
    asked = [request.base_name for request in requests_for(findings)]
    assert asked[:2] == [lock, scratch.base_name]
    # In whatever order they come.
    outcomes = run(place, scratch.base_name, lock)
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        (lock, "taken"),
        (scratch.base_name, "taken"),
        (lock, "removed"),
        (scratch.base_name, "removed"),
    ]
    assert not names(place) & {lock, scratch.base_name}
    assert audit_is_whole(place)


def test_while_somebody_holds_it_all_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    lock = plant(place, path_lock(scratch))
    before = names(place)
    with held_by_another(place.path(lock)):
        first, second = run(place, scratch.base_name, lock, store=alone(place))
    assert (first.base_name, first.status) == (lock, "kept")
    assert f"{lock} is held" in first.reasons[0]
    assert second.status == "kept"
    assert names(place) == before


def test_nix_s_own_locks_go_last(place: ThrowawayStore, scratch: StorePath) -> None:
    lock = output_lock(place.invent("x.drv"), "out")
    outcomes = run(place, lock, scratch.base_name)
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        (scratch.base_name, "taken"),
        (lock, "removed"),
        (scratch.base_name, "removed"),
    ]
    asked = requests_for(sweep(place.as_store()).findings)
    assert [request.kind for request in asked] == [EntryKind.LOCK] * len(asked)
