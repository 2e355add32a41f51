# SPDX-License-Identifier: MIT

import fcntl
import os
import re
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from helper.bench import can_be_locked, picture
from helper.child import as_ordinary_user, in_child, mount, needs_root, take_own_mounts
from storewarden import host
from storewarden.claims import Claim, Facts, proof_of
from storewarden.errors import StoreUnreadableError
from storewarden.helper.hold import Survey, Witness, in_database, settle
from storewarden.helper.surroundings import check_file_system
from storewarden.store.entries import Entry, EntryKind, FileId, look, open_directory
from storewarden.store.paths import Deriver, Origin, StorePath, output_lock, path_lock
from storewarden.store.store import NO, Fact, Known, Store
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

_FIRST = host.FIRST_ALLOCATED


@pytest.fixture
def seen(derivation: StorePath, scratch: StorePath) -> Survey:
    locks = tuple(sorted((path_lock(scratch), output_lock(derivation, "out"))))
    return Survey({scratch: NO}, {scratch: Origin(Deriver(derivation, "out"), locks, scratch=True)})


@pytest.fixture
def unknown(seen: Survey) -> Survey:
    """The same where no derivation is known, and so no lock that covers it."""
    return replace(seen, origins={})


@pytest.fixture
def entry(store_fd: int, scratch: StorePath) -> Entry:
    found = look(store_fd, scratch.base_name)
    assert found is not None
    return found


def proof(store: Store, store_fd: int, seen: Survey, entry: Entry) -> Facts:
    with ExitStack() as locks:
        return Witness(locks, store, store_fd, seen, entry, EntryKind.OUTPUT).hold_and_look()


def against(facts: Facts) -> Claim:
    """The one claim that was not known to be absent, and the last that was asked for."""
    *absent, last = facts.items()
    assert all(fact == NO for _, fact in absent)
    assert last[1].known is not Known.NO
    return last[0]


def test_all_claims_are_asked_and_the_locks_are_held(
    place: ThrowawayStore,
    store_fd: int,
    seen: Survey,
    entry: Entry,
    derivation: StorePath,
    scratch: StorePath,
) -> None:
    with ExitStack() as locks:
        witness = Witness(locks, place.as_store(), store_fd, seen, entry, EntryKind.OUTPUT)
        facts = witness.hold_and_look()
        assert set(facts) == set(proof_of(EntryKind.OUTPUT, seen.origins[scratch]))
        assert set(facts.values()) == {NO}
        held = [lock.base_name for lock in witness.held]
        assert held == sorted([path_lock(scratch), output_lock(derivation, "out")])
        assert not any(can_be_locked(place.path(lock)) for lock in held)


def test_no_lock_is_touched_without_need(
    place: ThrowawayStore, store_fd: int, seen: Survey, unknown: Survey, entry: Entry
) -> None:
    before = picture(place.store_dir.path), picture(f"{place.state_dir}/userpool")
    silent = replace(seen, nix={})
    unsaid = proof(place.as_store(), store_fd, silent, entry)
    assert (against(unsaid), unsaid[Claim.VALID_TO_NIX].known) == (
        Claim.VALID_TO_NIX,
        Known.UNKNOWN,
    )
    young = place.as_store(min_age=3600)
    assert against(proof(young, store_fd, unknown, entry)) is Claim.TOO_YOUNG
    assert (picture(place.store_dir.path), picture(f"{place.state_dir}/userpool")) == before
    assert not os.path.exists(f"{place.state_dir}/gc.lock")


@pytest.mark.parametrize("min_age", [0.0, 2.0, 3600.0])
def test_a_change_in_the_future_is_too_young(
    min_age: float, place: ThrowawayStore, store_fd: int, unknown: Survey, entry: Entry
) -> None:
    ahead = replace(entry, ctime=time.time() + 60)
    found = proof(place.as_store(min_age=min_age), store_fd, unknown, ahead)
    assert against(found) is Claim.TOO_YOUNG
    assert found[Claim.TOO_YOUNG].detail == f"in the future; waiting until {min_age:g} s old"


def test_an_old_modification_time_makes_nothing_old(
    place: ThrowawayStore, store_fd: int, unknown: Survey, scratch: StorePath
) -> None:
    os.utime(place.path(scratch.base_name), (1, 1))
    entry = look(store_fd, scratch.base_name)
    assert entry is not None
    store = place.as_store(min_age=60)
    assert against(proof(store, store_fd, unknown, entry)) is Claim.TOO_YOUNG


def test_its_age_is_told_in_seconds(
    place: ThrowawayStore, store_fd: int, unknown: Survey, entry: Entry
) -> None:
    young = replace(entry, ctime=time.time() - 1000)
    found = proof(place.as_store(min_age=6000), store_fd, unknown, young)
    assert against(found) is Claim.TOO_YOUNG
    assert re.fullmatch(r"10\d\d s ago; waiting until 6000 s old", found[Claim.TOO_YOUNG].detail)
    new = replace(entry, ctime=time.time())
    found = proof(place.as_store(min_age=6000), store_fd, unknown, new)
    assert re.fullmatch(r"\d+ s ago; waiting until 6000 s old", found[Claim.TOO_YOUNG].detail)


def test_another_file_system_counts_as_a_mount(
    place: ThrowawayStore, store_fd: int, seen: Survey, entry: Entry
) -> None:
    device, inode = entry.file_id
    elsewhere = replace(entry, file_id=FileId(device + 1, inode))
    found = proof(place.as_store(), store_fd, seen, elsewhere)
    assert against(found) is Claim.MOUNT
    assert found[Claim.MOUNT] == Fact(Known.YES, "it is another file system")


@pytest.mark.parametrize("member", ["file_id", "mode", "links", "uid", "gid", "size", "ctime"])
def test_any_difference_to_what_was_seen_is_a_change(
    member: str, place: ThrowawayStore, store_fd: int, seen: Survey, entry: Entry
) -> None:
    device, inode = entry.file_id
    was: Any = FileId(device, inode - 1) if member == "file_id" else getattr(entry, member) - 1
    other = replace(entry, **{member: was})
    users = replace(place.as_store().build_users, uids=frozenset({entry.uid, entry.uid - 1}))
    store = replace(place.as_store(), build_users=users)
    assert against(proof(store, store_fd, seen, other)) is Claim.CHANGED


@pytest.mark.parametrize(
    ("uid", "asked"),
    [
        (_FIRST + host.PER_SLOT - 1, range(_FIRST, _FIRST + host.PER_SLOT)),
        (30001, (30001,)),
    ],
)
def test_it_is_asked_for_the_processes_of_all_uids_of_a_slot(
    uid: int,
    asked: Collection[int],
    place: ThrowawayStore,
    store_fd: int,
    unknown: Survey,
    entry: Entry,
) -> None:
    questions: list[Collection[int]] = []

    def answer(uids: Collection[int]) -> list[int]:
        questions.append(uids)
        return [4711, 4712]

    users = replace(place.as_store().build_users, uids=frozenset({30001}))
    store = replace(place.as_store(), processes_of=answer, build_users=users)
    found = proof(store, store_fd, unknown, replace(entry, uid=uid))
    assert against(found) is Claim.PROCESS
    assert found[Claim.PROCESS] == Fact(Known.YES, "process 4711")
    assert questions == [asked]


def test_processes_that_cannot_all_be_seen_are_unknown(
    place: ThrowawayStore, store_fd: int, unknown: Survey, entry: Entry
) -> None:
    store = replace(place.as_store(), processes_of=lambda _: None)
    found = proof(store, store_fd, unknown, entry)
    assert against(found) is Claim.PROCESS
    assert found[Claim.PROCESS].known is Known.UNKNOWN


def test_orphans_that_cannot_all_be_seen_are_unknown(
    place: ThrowawayStore, store_fd: int, seen: Survey, entry: Entry
) -> None:
    store = replace(place.as_store(), processes_of=lambda _: None)
    found = proof(store, store_fd, seen, entry)
    assert against(found) is Claim.ORPHAN
    assert found[Claim.ORPHAN].known is Known.UNKNOWN


def test_temp_roots_that_cannot_be_read_are_unknown(
    place: ThrowawayStore, store_fd: int, seen: Survey, entry: Entry
) -> None:
    os.symlink("nowhere", f"{place.state_dir}/temproots/1")
    found = proof(place.as_store(), store_fd, seen, entry)
    assert against(found) is Claim.TEMP_ROOT
    assert found[Claim.TEMP_ROOT].known is Known.UNKNOWN


@pytest.mark.parametrize("state", ["db", ""])
def test_a_database_that_is_not_there_is_unknown(
    state: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    os.rename(f"{place.state_dir}/db", f"{place.state_dir}/away")
    if state:
        os.mkdir(f"{place.state_dir}/db")
    assert in_database(place.as_store(), scratch).known is Known.UNKNOWN


@needs_root
def test_where_the_mounts_cannot_be_read_nothing_is_begun_and_none_is_ruled_out(
    place: ThrowawayStore, store_fd: int, seen: Survey, entry: Entry
) -> None:
    def without_proc() -> list[str]:
        take_own_mounts()
        mount("-t", "tmpfs", "none", "/proc")
        with pytest.raises(StoreUnreadableError) as refused:
            check_file_system(place.as_store())
        with ExitStack() as locks:
            it = Witness(locks, place.as_store(), store_fd, seen, entry, EntryKind.OUTPUT)
            return [str(refused.value), it.mounted().known.value]

    told, mounted = in_child(without_proc)
    assert told == "the mounts of this machine cannot be read; nothing is removed"
    assert mounted == "unknown"


def settled_by_its_owner(
    look_for: Callable[[Witness], Fact], lay: Callable[[ThrowawayStore], str], kind: EntryKind
) -> str:
    """What an ordinary user, who also builds in a store of its own, is told of what it laid."""

    def alone(directory: str) -> str:
        place = ThrowawayStore.create(directory)
        name = lay(place)
        store = replace(place.as_store(), processes_of=lambda _: [os.getpid()])
        store_fd = open_directory(place.store_dir.path)
        entry = look(store_fd, name)
        assert entry is not None
        with ExitStack() as locks:
            it = Witness(locks, store, store_fd, Survey({}, {}), entry, kind)
            fact = settle(look_for, it)
        os.close(store_fd)
        place.close()
        return f"{fact.known.value}: {fact.detail}".replace(f"{os.getpid()}", "itself")

    told = as_ordinary_user(alone)
    assert isinstance(told, str)
    return told


def test_a_chroot_that_cannot_be_looked_into_is_unknown() -> None:
    def closed(place: ThrowawayStore) -> str:
        name = f"{place.add_derivation('x').base_name}.chroot"
        os.mkdir(place.path(name), 0o000)
        return name

    told = settled_by_its_owner(Witness.inside, closed, EntryKind.CHROOT)
    assert told == "unknown: root: permission denied"


def test_an_orphan_of_the_stores_owner_counts_where_that_one_builds() -> None:
    def stranded(place: ThrowawayStore) -> str:
        return place.strand(place.add_derivation("x")).base_name

    told = settled_by_its_owner(Witness.orphan, stranded, EntryKind.OUTPUT)
    assert told == "yes: process itself"


def planted(place: ThrowawayStore, store_fd: int, locks: ExitStack) -> Witness:
    """For a builder's file where a lock of Nix's belongs, which is no longer there."""
    name = path_lock(place.invent("x"))
    place.add_file(name)
    entry = look(store_fd, name)
    assert entry is not None
    os.unlink(place.path(name))
    return Witness(locks, place.as_store(), store_fd, Survey({}, {}), entry, EntryKind.OUTPUT)


def test_a_link_that_took_the_place_of_a_planted_lock_is_not_followed(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    witness, victim = planted(place, store_fd, locks), f"{place.state_dir}/victim"
    with open(victim, "wb"):
        pass
    os.symlink(victim, place.path(witness.entry.base_name))
    fact = settle(Witness.hold_path_locks, witness)
    assert fact.known is Known.UNKNOWN
    assert fact.detail.startswith(f"{witness.entry.base_name}: ")
    assert can_be_locked(victim)


def test_a_fifo_that_took_the_place_of_a_planted_lock_is_not_waited_for(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    witness = planted(place, store_fd, locks)
    os.mkfifo(place.path(witness.entry.base_name))
    assert settle(Witness.hold_path_locks, witness) == NO
    assert settle(Witness.changed, witness).known is Known.YES


def test_a_planted_lock_is_held_as_nix_would_hold_it(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    witness = planted(place, store_fd, locks)
    path = place.path(witness.entry.base_name)
    place.add_file(witness.entry.base_name)
    os.chmod(path, 0o644)
    with holding(path, fcntl.LOCK_SH):
        assert settle(Witness.hold_path_locks, witness).known is Known.YES
    assert settle(Witness.hold_path_locks, witness) == NO
    assert not can_be_locked(path, fcntl.LOCK_SH)
    locks.close()
    assert can_be_locked(path)
