# SPDX-License-Identifier: MIT
"""Stale lock files go too, unless they are held or still tell whose something is."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from helper.bench import (
    at,
    audit_is_whole,
    held_by_another,
    names,
    picture,
    records,
    request,
    run,
    run_requests,
)
from storewarden.protocol import RemoveRequest
from storewarden.store.paths import StorePath, output_lock
from storewarden.store.store import NO, Fact
from storewarden.throwaway import ThrowawayStore


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    return place.add_derivation("x")


@pytest.fixture
def scratch(place: ThrowawayStore, derivation: StorePath) -> StorePath:
    return place.strand(derivation)


def kept(place: ThrowawayStore, asked: RemoveRequest) -> tuple[str, ...]:
    """Why the engine leaves the store as it is, when asked so."""
    before = picture(place.store_dir.path)
    (outcome,) = run_requests(place, [asked])
    assert outcome.status == "kept"
    assert picture(place.store_dir.path) == before
    assert not records(place)
    return outcome.reasons


def test_a_stale_lock_goes_alone(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    before = names(place)
    assert [outcome.status for outcome in run(place, lock)] == ["removed"]
    assert names(place) == before - {lock}


def test_a_held_lock_stays(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with held_by_another(place.path(lock)):
        assert kept(place, request(place, lock)) == (
            f"its lock is held, so a build or copy of it is alive ({lock} is held)",
        )


def test_a_lock_stays_while_what_it_covers_lies_there(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    (reason,) = kept(place, request(place, lock))
    assert scratch.base_name in reason
    outcomes = run(place, scratch.base_name, lock)
    assert [outcome.status for outcome in outcomes] == ["taken", "removed", "removed"]


def test_a_lock_stays_when_nobody_can_tell_whether_what_it_covers_is_valid(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    place.strand(derivation)
    lock = output_lock(derivation, "out")

    def ask(paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        os.rename(f"{place.state_dir}/db/db.sqlite", f"{place.state_dir}/db/away")
        return dict.fromkeys(paths, NO)

    (outcome,) = run(place, lock, store=replace(place.as_store(), ask_nix=ask))
    assert outcome.status == "kept"
    assert "what it covers still lies there" in outcome.reasons[0]
    assert lock in names(place)


def test_a_lock_that_was_replaced_after_its_proof_is_not_written_to(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    run(place, lock, checkpoint=at("intended", lambda: os.unlink(place.path(lock))))
    assert not os.path.lexists(place.path(lock))
    assert records(place, "result")[0]["status"] == "removed"


@pytest.mark.parametrize("name", ["x", "x.drv", "x.drv.out", "x.drv.chroot", "x.drv.out.drv.dev"])
def test_a_stale_lock_of_any_name_goes(name: str, place: ThrowawayStore) -> None:
    lock = f"{place.invent(name).base_name}.lock"
    place.add_lock(lock)
    assert [outcome.status for outcome in run(place, lock)] == ["removed"]
    assert lock not in names(place)
    assert audit_is_whole(place)


def test_a_lock_beside_a_valid_path_goes(place: ThrowawayStore) -> None:
    wanted = place.add_valid("wanted")
    place.add_lock(f"{wanted.base_name}.lock")
    before = names(place)
    assert run(place, f"{wanted.base_name}.lock")[-1].status == "removed"
    assert names(place) == before - {f"{wanted.base_name}.lock"}


def test_a_valid_path_that_looks_like_a_lock_stays(place: ThrowawayStore) -> None:
    path = place.invent("Cargo.lock")
    place.add_lock(path.base_name)
    place.register(path)
    assert kept(place, request(place, path.base_name)) == ("Nix says it is a valid path",)


def test_a_lock_that_nobody_holds_goes_beside_one_that_is_held(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with held_by_another(place.path(output_lock(derivation, "dev"))):
        assert run(place, lock)[-1].status == "removed"
        assert output_lock(derivation, "dev") in names(place)


def test_a_collector_at_work_keeps_locks_too(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with held_by_another(f"{place.state_dir}/gc.lock"):
        (reason,) = kept(place, request(place, lock))
    assert "garbage collector" in reason
