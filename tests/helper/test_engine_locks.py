# SPDX-License-Identifier: MIT
"""Stale lock files go too, unless they are held or still tell whose something is."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from helper.bench import at, audit_is_whole, kept, names, records, run
from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.client import requests_for
from storewarden.scan import sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import NO, Fact
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding


def test_a_stale_lock_goes_alone(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    before = names(place)
    assert [outcome.status for outcome in run(place, lock)] == ["removed"]
    assert names(place) == before - {lock}
    (intent, result) = records(place)
    assert intent["locks"] == [lock]
    assert [intent.get(member, "") for member in ("private", "deriver", "output")] == [""] * 3
    assert (result["files"], result.get("directories", 0)) == (1, 0)


@needs_root
def test_a_lock_that_cannot_be_unlinked_stays_and_that_is_on_record(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    there = place.path(lock)

    def in_own_mounts() -> list[list[str]]:
        take_own_mounts()
        cover = at("intended", lambda: mount("--bind", there, there))
        return [[one.status.value, *one.reasons] for one in run(place, lock, checkpoint=cover)]

    assert in_child(in_own_mounts) == [["failed", "something is mounted on it"]]
    assert os.stat(there).st_size == 0
    assert [result["status"] for result in records(place, "result")] == ["failed"]
    assert audit_is_whole(place)


def test_a_held_lock_stays(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with holding(place.path(lock)):
        assert kept(place, lock).reasons == (
            f"its lock is held, so a build or copy of it is alive ({lock} is held)",
        )


def test_a_lock_stays_while_what_it_covers_lies_there(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    (reason,) = kept(place, lock).reasons
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
    assert kept(place, path.base_name).reasons == ("Nix says it is a valid path",)


def test_a_lock_that_nobody_holds_goes_beside_one_that_is_held(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with holding(place.path(output_lock(derivation, "dev"))):
        assert run(place, lock)[-1].status == "removed"
        assert output_lock(derivation, "dev") in names(place)


def test_a_collector_at_work_keeps_locks_too(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    with holding(f"{place.state_dir}/gc.lock"):
        (reason,) = kept(place, lock).reasons
    assert "garbage collector" in reason


# A file of a build user's where a lock of Nix's belongs: debris itself, and it goes first.


def plant(place: ThrowawayStore, lock: str, mode: int = 0o666) -> str:
    """Another build user of the same slot lays a file there."""
    if lock not in names(place):
        place.add_lock(lock)
    os.chmod(place.path(lock), mode)
    os.chown(place.path(lock), place.builder + 1, place.builder)
    return lock


@needs_root
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


@needs_root
def test_while_somebody_holds_it_all_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    lock = plant(place, path_lock(scratch))
    before = names(place)
    with holding(place.path(lock)):
        first, second = run(place, scratch.base_name, lock, store=alone(place))
    assert (first.base_name, first.status) == (lock, "kept")
    assert f"{lock} is held" in first.reasons[0]
    assert second.status == "kept"
    assert names(place) == before


def test_a_lock_on_a_file_that_no_lock_is_called_like_says_nothing(place: ThrowawayStore) -> None:
    path = place.invent("x")
    place.add_file(path.base_name)
    os.chown(place.path(path.base_name), place.builder, -1)
    os.chmod(place.path(path.base_name), 0o644)
    with holding(place.path(path.base_name)):
        assert run(place, path.base_name, store=alone(place))[-1].status == "removed"


@needs_root
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
