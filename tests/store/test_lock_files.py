# SPDX-License-Identifier: MIT
"""What is exactly a lock file as Nix leaves it; everything else of that name is not."""

import os
from dataclasses import replace

import pytest

from storewarden.store.entries import (
    BuildUsers,
    Entry,
    EntryKind,
    FileId,
    classify,
    is_lock_file,
    look,
)
from storewarden.throwaway import ThrowawayStore

HASH = "0c" * 16
LOCK = f"{HASH}-a.lock"
STORE_UID = 0
USERS = BuildUsers(30000, frozenset({30001, 30002}), 872415232, 65536 * 128, 65536)
ENTRY = Entry(f"{HASH}-a", FileId(1, 2), 0o40755, 2, 0, 0, 4096, 8, 100.0)


def _lock(place: ThrowawayStore) -> Entry:
    place.add_lock(LOCK)
    return _seen(place, LOCK)


def _seen(place: ThrowawayStore, name: str) -> Entry:
    fd = os.open(place.store_dir.path, os.O_RDONLY)
    try:
        entry = look(fd, name)
    finally:
        os.close(fd)
    assert entry is not None
    return entry


def test_an_empty_private_file_called_lock_is_a_lock_file(place: ThrowawayStore) -> None:
    lock = _lock(place)
    assert is_lock_file(lock, os.geteuid())
    kind = classify(lock, None, store_uid=os.geteuid(), build_users=place.as_store().build_users)
    assert kind is EntryKind.LOCK


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o400, 0o4600, 0o666, 0o000])
def test_a_file_of_another_mode_is_no_lock_file(place: ThrowawayStore, mode: int) -> None:
    _lock(place)
    os.chmod(place.path(LOCK), mode)
    assert not is_lock_file(_seen(place, LOCK), os.geteuid())


def test_a_lock_file_with_a_byte_in_it_is_none(place: ThrowawayStore) -> None:
    _lock(place)
    with open(place.path(LOCK), "w", encoding="ascii") as file:
        file.write("d")
    assert not is_lock_file(_seen(place, LOCK), os.geteuid())


def test_a_lock_file_with_another_link_is_none(place: ThrowawayStore) -> None:
    _lock(place)
    os.link(place.path(LOCK), place.path(".links/x"))
    assert not is_lock_file(_seen(place, LOCK), os.geteuid())


def test_a_lock_file_of_another_owner_is_none(place: ThrowawayStore) -> None:
    assert not is_lock_file(_lock(place), os.geteuid() + 1)


def test_links_fifos_and_directories_are_no_lock_files(place: ThrowawayStore) -> None:
    place.add_lock(f"{HASH}-target")
    os.symlink(f"{HASH}-target", place.path(LOCK))
    os.mkfifo(place.path(f"{HASH}-b.lock"), 0o600)
    os.mkdir(place.path(f"{HASH}-c.lock"), 0o600)
    for name in (LOCK, f"{HASH}-b.lock", f"{HASH}-c.lock", f"{HASH}-target"):
        assert not is_lock_file(_seen(place, name), os.geteuid())


def test_an_empty_output_called_lock_is_an_output() -> None:
    cargo_lock = replace(ENTRY, base_name=LOCK, mode=0o100600, links=1, uid=30001, size=0)
    assert classify(cargo_lock, None, store_uid=STORE_UID, build_users=USERS) is EntryKind.OUTPUT
    own = replace(cargo_lock, uid=STORE_UID)
    assert classify(own, None, store_uid=STORE_UID, build_users=USERS) is EntryKind.LOCK
