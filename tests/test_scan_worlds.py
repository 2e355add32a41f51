# SPDX-License-Identifier: MIT
"""Worlds in which the store's database is absent, wrong or not to be seen: nothing is guessed."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from storewarden.claims import Claim, Verdict
from storewarden.errors import StoreUnreadableError
from storewarden.scan import sweep
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StoreDir, output_lock
from storewarden.store.store import Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import look_at, sealed
from tables import execute

needs_ordinary = pytest.mark.skipif(os.geteuid() == 0, reason="root can open every database")


def test_an_empty_database_is_refused(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("hello-2.12"))
    execute(place, "DELETE FROM ValidPaths")
    with pytest.raises(StoreUnreadableError, match="no valid path"):
        sweep(place.as_store())


def test_the_database_of_another_store_is_refused(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("hello-2.12"))
    execute(place, "UPDATE ValidPaths SET path = '/nix/store/' || substr(path, -40)")
    with pytest.raises(StoreUnreadableError, match="is --state-dir the one of this store"):
        sweep(place.as_store())


def test_the_same_store_by_another_name_is_refused(place: ThrowawayStore) -> None:
    other = f"{os.path.dirname(place.store_dir.path)}/another"
    os.rename(place.store_dir.path, other)
    store = replace(place.as_store(), store_dir=StoreDir(other), view=other)
    with pytest.raises(StoreUnreadableError, match="is --state-dir the one of this store"):
        sweep(store)


def test_too_many_strangers_are_refused(place: ThrowawayStore) -> None:
    for number in range(101):
        place.add_file(place.invent(f"stranger-{number}").base_name)
    with pytest.raises(StoreUnreadableError, match="too many to be debris"):
        sweep(place.as_store())


@pytest.mark.parametrize("name", ["db.sqlite", "schema"])
def test_a_store_without_its_database_is_refused(place: ThrowawayStore, name: str) -> None:
    os.unlink(f"{place.state_dir}/db/{name}")
    with pytest.raises(StoreUnreadableError, match=name):
        sweep(place.as_store())


def test_a_database_without_the_table_of_derivers_is_refused(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("hello-2.12"))
    execute(place, "DROP TABLE DerivationOutputs")
    with pytest.raises(StoreUnreadableError, match="DerivationOutputs"):
        sweep(place.as_store())


def test_what_was_registered_after_the_listing_is_not_missing(place: ThrowawayStore) -> None:
    late = place.add_valid("late")
    assert late.base_name not in look_at(place)


@pytest.fixture
def unseen(place: ThrowawayStore) -> Iterator[ThrowawayStore]:
    """A store with debris whose database this user cannot open."""
    place.strand(place.add_derivation("hello-2.12"))
    with sealed(place):
        yield place


@needs_ordinary
def test_where_the_database_is_not_to_be_seen_debris_is_found_by_owner_and_told_so(
    unseen: ThrowawayStore,
) -> None:
    store = replace(unseen.as_store(), ask_nix=lambda paths: dict.fromkeys(paths, Fact(Known.NO)))
    swept = sweep(store)
    assert any("found by owner instead" in note for note in swept.notes)
    # All here is this user's, as all in a store is root's: only lock files show without owners.
    derivation = unseen.invent("hello-2.12.drv")
    (lock,) = swept.findings
    assert (lock.base_name, lock.kind) == (output_lock(derivation, "out"), EntryKind.LOCK)
    assert lock.judgement.verdict is not Verdict.REMOVABLE
    assert Claim.VALID_IN_DATABASE in lock.judgement.unknown


@needs_ordinary
def test_where_nothing_is_to_be_seen_at_all_everything_is_kept(
    unseen: ThrowawayStore,
) -> None:
    swept = sweep(unseen.as_store())
    assert swept.nix_silent
    assert {finding.judgement.verdict for finding in swept.findings} == {Verdict.KEEP}


@needs_ordinary
def test_a_store_that_may_not_be_listed_is_refused(place: ThrowawayStore) -> None:
    os.chmod(place.store_dir.path, 0o300)
    try:
        with pytest.raises(StoreUnreadableError, match="permission denied"):
            sweep(place.as_store())
    finally:
        os.chmod(place.store_dir.path, 0o700)
