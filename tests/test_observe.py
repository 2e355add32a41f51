# SPDX-License-Identifier: MIT
"""What is seen around an entry; whatever cannot be seen is unknown, never absent."""

import os
import stat
from contextlib import ExitStack
from dataclasses import replace

import pytest

from storewarden.claims import Claim, Facts, proof_of
from storewarden.host import Mount
from storewarden.observe import Lock, Observation, Unregistered
from storewarden.store.derivation import covering_locks
from storewarden.store.entries import Entry, EntryKind, look
from storewarden.store.paths import Deriver, Origin, StorePath, output_lock, path_lock
from storewarden.store.store import NO, Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table, user_lock

Seen = tuple[Entry, Origin | None]
Covering = tuple[str, ...] | None


@pytest.fixture
def stranded(place: ThrowawayStore, store_fd: int) -> Seen:
    """A stranded output and where it comes from."""
    derivation = place.add_derivation("hello-2.12")
    path = place.strand(derivation)
    entry = look(store_fd, path.base_name)
    assert entry is not None
    locks = tuple(sorted((path_lock(path), output_lock(derivation, "out"))))
    return entry, Origin(Deriver(derivation, "out"), locks, scratch=True)


@pytest.fixture
def unknown(stranded: Seen) -> Seen:
    """The same, where no derivation is known and so no lock that covers it."""
    return stranded[0], None


def around(
    place: ThrowawayStore, store_fd: int, min_age: float | None = 0.0, pids: list[int] | None = None
) -> Observation:
    """What is to be seen in a store where nobody else is at work, or those processes are."""
    store = replace(place.as_store(min_age), processes_of=lambda _: pids or [])
    return Observation(store, store_fd, ExitStack())


def covering(seen: Observation, entry: Entry, kind: EntryKind, origin: Origin | None) -> Covering:
    """The locks that cover that entry."""
    return covering_locks(seen.store, seen.store_fd, entry, kind, origin)


def facts_of(seen: Observation, of: Seen) -> Facts:
    """What is seen of each claim on the entry that counts for it."""
    entry, origin = of
    locks = covering(seen, entry, EntryKind.OUTPUT, origin)
    return seen.facts(Unregistered(entry, EntryKind.OUTPUT, origin, locks, NO, NO))


def facts(seen: Observation, of: Seen) -> dict[Claim, Known]:
    """What is known of each claim on the entry that counts for it."""
    return {claim: fact.known for claim, fact in facts_of(seen, of).items()}


def locks(seen: Observation, entry: Entry, kind: EntryKind, origin: Origin | None) -> list[Lock]:
    """The locks that are there of those that cover it."""
    return list(seen.locks(entry, covering(seen, entry, kind, origin)))


@needs_lock_table
def test_nothing_claims_what_nobody_is_at_work_on(
    place: ThrowawayStore, store_fd: int, stranded: Seen, unknown: Seen
) -> None:
    assert set(facts(around(place, store_fd), stranded).values()) == {Known.NO}
    assert set(facts(around(place, store_fd), unknown).values()) == {Known.NO}


def test_only_what_the_proof_needs_is_looked_at(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    needed = set(proof_of(EntryKind.OUTPUT, stranded[1]))
    assert facts(around(place, store_fd, min_age=None), stranded).keys() == needed
    # An age that somebody asks for counts, whatever the proof needs.
    assert facts(around(place, store_fd), stranded).keys() == needed | {Claim.TOO_YOUNG}


def test_what_cannot_be_seen_is_unknown_for_every_claim_that_rests_on_it(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, _ = stranded
    mode = stat.S_IFDIR | 0o775
    for name in ("gc.lock", f"userpool/{entry.uid}", user_lock(place)):
        with open(f"{place.state_dir}/{name}", "wb"):
            pass
    store = replace(place.as_store(), processes_of=lambda _: None)
    blind = Observation(store, store_fd, ExitStack())
    blind.flocks = blind.mounts = blind.temp_roots = None
    always = {Claim.COLLECTOR, Claim.PATH_LOCK, Claim.TEMP_ROOT, Claim.MOUNT}
    of_user = {Claim.USER_LOCK, Claim.PROCESS, Claim.SHARED}
    for origin, unseen in ((stranded[1], {Claim.ORPHAN}), (None, of_user)):
        known = facts(blind, (replace(entry, mode=mode), origin))
        assert {c for c, fact in known.items() if fact is Known.UNKNOWN} == always | unseen


def test_whether_root_or_a_hidden_owner_is_at_work_is_unknown(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    seen = around(place, store_fd)
    seen.store = replace(seen.store, hidden_uid=65534)
    for uid in (0, 65534):
        assert facts(seen, (replace(stranded[0], uid=uid), None))[Claim.PROCESS] is Known.UNKNOWN


@needs_lock_table
def test_an_output_has_the_lock_of_its_path_and_that_of_its_derivation(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    entry, origin = stranded
    assert origin is not None
    own = path_lock(StorePath(entry.base_name))
    place.add_lock(own)
    seen = locks(around(place, store_fd), entry, EntryKind.OUTPUT, origin)
    assert {(lock.base_name, lock.held) for lock in seen} == {
        (name, Known.NO) for name in origin.locks
    }
    assert own in origin.locks
    seen = locks(around(place, store_fd), entry, EntryKind.OUTPUT, None)
    assert [lock.base_name for lock in seen] == [own]


@needs_lock_table
def test_a_lock_file_has_itself_and_its_holder(place: ThrowawayStore, store_fd: int) -> None:
    name = f"{place.invent('substituted').base_name}.lock"
    place.add_lock(name)
    entry = look(store_fd, name)
    assert entry is not None
    with holding(place.path(name)) as pid:
        (lock,) = locks(around(place, store_fd), entry, EntryKind.LOCK, None)
    assert (lock.base_name, lock.held, lock.pid) == (name, Known.YES, pid)


@pytest.mark.parametrize(
    ("below", "known"),
    [("", Known.YES), ("/a/b", Known.YES), ("-other", Known.NO), ("x", Known.NO)],
)
def test_a_mount_on_it_or_in_it_is_a_claim(
    place: ThrowawayStore, store_fd: int, stranded: Seen, below: str, known: Known
) -> None:
    point = f"{place.path(stranded[0].base_name)}{below}"
    seen = around(place, store_fd)
    seen.mounts = [Mount("/", "ext4"), Mount(point, "tmpfs")]
    assert facts(seen, stranded)[Claim.MOUNT] is known


@pytest.mark.parametrize(
    ("since", "known"), [(0.0, Known.YES), (9.9, Known.YES), (10.0, Known.NO), (-50.0, Known.YES)]
)
def test_the_age_counts_from_the_last_change_and_a_future_one_is_too_young(
    place: ThrowawayStore, store_fd: int, stranded: Seen, since: float, known: Known
) -> None:
    entry, origin = stranded
    seen = around(place, store_fd, min_age=10)
    seen.now = 1000.0
    fact = facts_of(seen, (replace(entry, ctime=1000.0 - since), origin))[Claim.TOO_YOUNG]
    assert fact.known is known
    assert ("sudo touch -h" in fact.detail) == (since < 0)
    # Rounded down: nothing is too young that is as old as is wanted.
    assert (fact.detail == "9 s ago; waiting until 10 s old") == (since == 9.9)


def test_what_others_may_write_to_is_shared_while_another_build_user_is_at_work(
    place: ThrowawayStore, store_fd: int, unknown: Seen
) -> None:
    entry, _ = unknown
    shared = replace(entry, mode=stat.S_IFDIR | 0o777)
    quiet, busy = around(place, store_fd), around(place, store_fd)
    users = busy.store.build_users
    other = next(uid for uid in users.everyone[1] if users.slot(uid) != users.slot(place.builder))
    busy.store = replace(busy.store, processes_of=lambda uids: [4711] if other in uids else [])
    assert facts(busy, (shared, None))[Claim.SHARED] is Known.YES
    assert facts(busy, (entry, None))[Claim.SHARED] is Known.NO
    assert facts(quiet, (shared, None))[Claim.SHARED] is Known.NO
    own = around(place, store_fd, pids=[4711])
    assert facts(own, (shared, None))[Claim.SHARED] is Known.NO, "that is its owner's process"


def test_an_entry_that_is_no_store_path_may_have_any_root(
    place: ThrowawayStore, store_fd: int, stranded: Seen
) -> None:
    strange = replace(stranded[0], base_name="strange\n")
    found = facts_of(around(place, store_fd), (strange, None))
    assert found[Claim.TEMP_ROOT] == Fact(Known.UNKNOWN)


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
    place: ThrowawayStore, store_fd: int, unknown: Seen, name: str, claim: Claim
) -> None:
    with open(f"{place.state_dir}/temproots/4242", "wb"):
        pass
    os.chmod(f"{place.state_dir}/{name}", 0)
    try:
        assert facts(around(place, store_fd), unknown)[claim] is Known.UNKNOWN
    finally:
        os.chmod(f"{place.state_dir}/{name}", 0o700)
