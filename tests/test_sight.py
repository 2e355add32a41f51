# SPDX-License-Identifier: MIT
"""What is seen around an entry; whatever cannot be seen is unknown, never absent."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace

import pytest

from storewarden.sight import Sight, look_around
from storewarden.store.derivers import Deriver
from storewarden.store.entries import Entry, EntryKind, look, open_directory
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.verdict import Claim, Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table, user_lock

Seen = tuple[Entry, Deriver]


@pytest.fixture
def store_fd(place: ThrowawayStore) -> Iterator[int]:
    """The store directory, open."""
    fd = open_directory(place.store_dir.path)
    yield fd
    os.close(fd)


@pytest.fixture
def stranded(place: ThrowawayStore, store_fd: int) -> Seen:
    """A stranded output and its derivation."""
    derivation = place.add_derivation("hello-2.12")
    entry = look(store_fd, place.strand(derivation).base_name)
    assert entry is not None
    return entry, Deriver(derivation, "out")


def around(place: ThrowawayStore, store_fd: int) -> Sight:
    """All that is to be seen, in a store where nobody else is at work."""
    store = replace(place.as_store(), processes_of=lambda _: [])
    return look_around(store, store_fd, {place.builder})


def facts(sight: Sight, seen: tuple[Entry, Deriver | None]) -> dict[Claim, Known]:
    """What is known of each claim on the entry."""
    entry, deriver = seen
    locks = sight.locks(entry, EntryKind.OUTPUT, deriver)
    found = sight.facts(entry, EntryKind.OUTPUT, deriver, locks)
    return {claim: fact.known for claim, fact in found.items()}


@needs_lock_table
def test_nothing_claims_what_nobody_is_at_work_on(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    assert set(facts(around(place, store_fd), stranded).values()) == {Known.NO}


def test_what_cannot_be_seen_is_unknown_for_every_claim_that_rests_on_it(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, _ = stranded
    for name in ("gc.lock", f"userpool/{entry.uid}", user_lock(place)):
        with open(f"{place.state_dir}/{name}", "wb"):
            pass
    blind = replace(
        around(place, store_fd), holders=None, running={entry.uid: None}, roots=None, mounts=None
    )
    known = facts(blind, stranded)
    unseen = {claim for claim, fact in known.items() if fact is Known.UNKNOWN}
    assert unseen == {
        Claim.COLLECTOR,
        Claim.PATH_LOCK,
        Claim.USER_LOCK,
        Claim.PROCESS,
        Claim.TEMP_ROOT,
        Claim.MOUNT,
    }


def test_a_uid_that_was_not_looked_for_is_unknown(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, deriver = stranded
    other = replace(entry, uid=entry.uid + 1)
    assert facts(around(place, store_fd), (other, deriver))[Claim.PROCESS] is Known.UNKNOWN


@needs_lock_table
def test_an_output_has_the_lock_of_its_path_and_that_of_its_derivation(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, deriver = stranded
    path = StorePath(entry.base_name)
    place.add_lock(path_lock(path))
    names = {path_lock(path), output_lock(deriver.derivation, "out")}
    seen = around(place, store_fd).locks(entry, EntryKind.OUTPUT, deriver)
    assert {(lock.base_name, lock.held) for lock in seen} == {(name, Known.NO) for name in names}
    seen = around(place, store_fd).locks(entry, EntryKind.OUTPUT, None)
    assert [lock.base_name for lock in seen] == [path_lock(path)]


@needs_lock_table
def test_a_lock_file_has_itself_and_its_holder(place: ThrowawayStore, store_fd: int) -> None:
    name = f"{place.invent('substituted').base_name}.lock"
    place.add_lock(name)
    entry = look(store_fd, name)
    assert entry is not None
    with holding(place.path(name)) as pid:
        (lock,) = around(place, store_fd).locks(entry, EntryKind.LOCK, None)
    assert (lock.base_name, lock.held, lock.pid) == (name, Known.YES, pid)


@pytest.mark.parametrize("kind", sorted(set(EntryKind) - {EntryKind.OUTPUT, EntryKind.LOCK}))
def test_other_kinds_are_not_looked_at_for_locks(
    place: ThrowawayStore, store_fd: int, stranded: Seen, kind: EntryKind
) -> None:
    assert around(place, store_fd).locks(stranded[0], kind, stranded[1]) == ()


@pytest.mark.parametrize(
    ("below", "known"),
    [("", Known.YES), ("/a/b", Known.YES), ("-other", Known.NO), ("x", Known.NO)],
)
def test_a_mount_on_it_or_in_it_is_a_claim(
    place: ThrowawayStore, store_fd: int, stranded: Seen, below: str, known: Known
) -> None:
    point = f"{place.path(stranded[0].base_name)}{below}"
    sight = replace(around(place, store_fd), mounts=[("/", "ext4"), (point, "tmpfs")])
    assert facts(sight, stranded)[Claim.MOUNT] is known


@pytest.mark.parametrize(
    ("since", "known"), [(0.0, Known.YES), (9.9, Known.YES), (10.0, Known.NO), (-50.0, Known.YES)]
)
def test_the_age_counts_from_the_last_change_and_a_future_one_is_too_young(
    place: ThrowawayStore, store_fd: int, stranded: Seen, since: float, known: Known
) -> None:
    entry, deriver = stranded
    sight = replace(around(place, store_fd), store=place.as_store(min_age=10), now=1000.0)
    fact = sight.facts(replace(entry, ctime=1000.0 - since), EntryKind.OUTPUT, deriver, ())[
        Claim.TOO_YOUNG
    ]
    assert fact.known is known
    assert ("sudo touch -h" in fact.detail) == (since < 0)
    # Rounded down: nothing is too young that is as old as is wanted.
    assert (fact.detail == "9 s ago, 10 s are wanted") == (since == 9.9)


def test_what_others_may_write_to_is_shared_unless_its_derivation_is_known(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, deriver = stranded
    shared = replace(entry, mode=stat.S_IFDIR | 0o777)
    sight = around(place, store_fd)
    assert facts(sight, (shared, None))[Claim.SHARED] is Known.YES
    assert facts(sight, (shared, deriver))[Claim.SHARED] is Known.NO
    assert facts(sight, (entry, None))[Claim.SHARED] is Known.NO


def test_an_entry_that_is_no_store_path_may_have_any_root(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    strange = replace(stranded[0], base_name="strange\n")
    fact = around(place, store_fd).facts(strange, EntryKind.OUTPUT, None, ())[Claim.TEMP_ROOT]
    assert fact == Fact(Known.UNKNOWN)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("temproots", Claim.TEMP_ROOT),
        ("temproots/4242", Claim.TEMP_ROOT),
        ("userpool", Claim.USER_LOCK),
        ("", Claim.COLLECTOR),
    ],
)
def test_a_state_that_may_not_be_read_is_unknown(
    place: ThrowawayStore, store_fd: int, stranded: Seen, name: str, claim: Claim
) -> None:
    with open(f"{place.state_dir}/temproots/4242", "wb"):
        pass
    os.chmod(f"{place.state_dir}/{name}", 0)
    try:
        assert facts(around(place, store_fd), stranded)[claim] is Known.UNKNOWN
    finally:
        os.chmod(f"{place.state_dir}/{name}", 0o700)
