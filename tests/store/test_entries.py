# SPDX-License-Identifier: MIT
"""Entries: what `lstat` sees of real files, and the kind that follows from it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helper.child import descriptors_left
from storewarden.errors import StoreUnreadableError
from storewarden.scan import is_private
from storewarden.store.entries import (
    PRIVATE_PREFIX,
    BuildUsers,
    Entry,
    EntryKind,
    FileId,
    classify,
    each_name,
    is_lock_file,
    look,
    open_directory,
)
from storewarden.store.paths import Deriver, Origin, StorePath
from storewarden.throwaway import ThrowawayStore

HASH = "0c" * 16
STORE_UID = 0
USERS = BuildUsers(30000, frozenset({30001, 30002}), 872415232, 65536 * 128, 65536)
ENTRY = Entry(f"{HASH}-a", FileId(1, 2), 0o40755, 2, 0, 0, 4096, 8, 100.0)


DERIVER = Deriver(StorePath(f"{'1c' * 16}-x.drv"), "out")
SCRATCH = Origin(DERIVER, (), scratch=True)
KNOWN = Origin(DERIVER, (), scratch=False)


def kind_of(
    base_name: str, uid: int = STORE_UID, gid: int = 0, origin: Origin | None = None
) -> EntryKind:
    """The kind of a directory of that name, owner and origin."""
    entry = replace(ENTRY, base_name=base_name, uid=uid, gid=gid)
    return classify(entry, origin, store_uid=STORE_UID, build_users=USERS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{HASH}-a", EntryKind.OUTPUT_OF_ROOT),
        (f"{HASH}-a.drv.chroot", EntryKind.CHROOT),
        (f"{HASH}-a.check", EntryKind.CHECK),
        (f"{HASH}-a.tmp", EntryKind.TEMPORARY),
        (f"{HASH}-a.old-12-3", EntryKind.OLD),
        (f"{HASH}-a.old-12-", EntryKind.OUTPUT_OF_ROOT),
        ("tmp-1-2", EntryKind.TEMPORARY),
        ("add-1-2", EntryKind.TEMPORARY),
        ("rename-tmp-1", EntryKind.TEMPORARY),
        (".tmp-link-1-2", EntryKind.TEMPORARY),
        (".tmp-1-2", EntryKind.TEMPORARY),
        ("tmp-a\nb", EntryKind.TEMPORARY),
        ("trash", EntryKind.TEMPORARY),
        ("trash2", EntryKind.FOREIGN),
        (".DS_Store", EntryKind.FOREIGN),
        ("lost+found", EntryKind.FOREIGN),
        ("\udcff", EntryKind.FOREIGN),
        (f"{HASH}-{'a' * 212}", EntryKind.FOREIGN),
    ],
)
@pytest.mark.parametrize("uid", [STORE_UID, 30001, 4321])
def test_a_name_decides_only_what_no_build_could_have_chosen(
    name: str, kind: EntryKind, uid: int
) -> None:
    if uid != STORE_UID and StorePath.maybe(name) is not None:
        kind = EntryKind.OUTPUT if uid == 30001 else EntryKind.FOREIGN
    assert kind_of(name, uid) is kind


@pytest.mark.parametrize("uid", [STORE_UID, 30001, 4321])
@pytest.mark.parametrize("suffix", ["", ".tmp", ".check", ".old-1-2", ".drv.chroot"])
def test_what_only_a_build_writes_is_an_output_whoever_owns_it_and_whatever_it_is_called(
    suffix: str, uid: int
) -> None:
    assert kind_of(f"{HASH}-a{suffix}", uid, origin=SCRATCH) is EntryKind.OUTPUT


def test_what_root_has_at_a_known_path_may_be_a_copy_in_progress() -> None:
    assert kind_of(f"{HASH}-a", origin=KNOWN) is EntryKind.OUTPUT_OF_ROOT
    assert kind_of(f"{HASH}-a", 4321, origin=KNOWN) is EntryKind.OUTPUT


def test_where_builds_run_as_the_stores_owner_a_scratch_path_may_be_a_living_builders() -> None:
    entry = replace(ENTRY, base_name=f"{HASH}-a")
    nobody = BuildUsers(None, frozenset(), 872415232, 65536, 65536)
    kind = classify(entry, SCRATCH, store_uid=STORE_UID, build_users=nobody)
    assert kind is EntryKind.OUTPUT_OF_ROOT
    # Only root has builds run as other users, whoever there is.
    own = replace(entry, uid=1000)
    kind = classify(own, SCRATCH, store_uid=1000, build_users=USERS)
    assert kind is EntryKind.OUTPUT_OF_ROOT


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("", EntryKind.OUTPUT), (".check", EntryKind.CHECK), (".old-1-2", EntryKind.OLD)],
)
def test_where_the_store_is_a_build_users_own_its_names_decide(
    suffix: str, kind: EntryKind
) -> None:
    entry = replace(ENTRY, base_name=f"{HASH}-a{suffix}", uid=30001)
    assert classify(entry, None, store_uid=30001, build_users=USERS) is kind


@pytest.mark.parametrize(
    ("uid", "gid", "kind"),
    [
        (30001, 30000, EntryKind.OUTPUT),
        (30001, 100, EntryKind.OUTPUT),
        (4321, 30000, EntryKind.OUTPUT),
        (872415232, 100, EntryKind.OUTPUT),
        (872415232 + 65536 * 128 - 1, 100, EntryKind.OUTPUT),
        (872415232 + 65536 * 128, 100, EntryKind.FOREIGN),
        (872415231, 100, EntryKind.FOREIGN),
        (30003, 100, EntryKind.FOREIGN),
        (0, 30000, EntryKind.OUTPUT_OF_ROOT),
        (0, 0, EntryKind.OUTPUT_OF_ROOT),
        (65534, 65534, EntryKind.FOREIGN),
    ],
)
def test_the_owner_decides_about_a_plain_store_path(uid: int, gid: int, kind: EntryKind) -> None:
    assert kind_of(f"{HASH}-a", uid, gid) is kind


def test_without_a_build_group_no_gid_makes_an_output() -> None:
    nobody = BuildUsers(None, frozenset(), 872415232, 65536, 65536)
    assert not nobody.own(4321, 4321)
    assert nobody.own(872415232, 4321)
    assert nobody.slot(872415232 + 65535) == 0
    assert nobody.slot(872415232 + 65536) is None


def test_root_is_never_a_build_user_even_where_the_group_says_so() -> None:
    assert not BuildUsers(0, frozenset({0}), 0, 100, 1).own(0, 0)


def test_uids_of_one_slot_share_it() -> None:
    first = USERS.first_allocated
    slots = [USERS.slot(first + offset) for offset in (-1, 0, 65535, 65536, 65536 * 128 - 1)]
    assert slots == [None, 0, 0, 1, 127]


def _seen(place: ThrowawayStore, name: str) -> Entry:
    fd = os.open(place.store_dir.path, os.O_RDONLY)
    try:
        entry = look(fd, name)
    finally:
        os.close(fd)
    assert entry is not None
    return entry


def test_every_name_but_the_links_directory_is_listed(place: ThrowawayStore) -> None:
    strange = [b"\xff\xfe", b"a\nb", b".DS_Store", b".links2"]
    for name in strange:
        os.mkdir(os.path.join(os.fsencode(place.store_dir.path), name))
    fd = open_directory(place.store_dir.path)
    try:
        names = list(each_name(fd))
    finally:
        os.close(fd)
    assert {os.fsencode(name) for name in names} >= set(strange)
    assert sorted([*names, ".links"]) == sorted(os.listdir(place.store_dir.path))


def test_an_entry_is_seen_as_it_is_and_never_followed(place: ThrowawayStore) -> None:
    os.symlink("/etc", place.path("link"))
    link = _seen(place, "link")
    assert link.file_id.inode == os.lstat(place.path("link")).st_ino
    assert not link.open_to_others
    assert link.store_path is None


def test_what_others_may_write_to_is_open_to_them() -> None:
    modes = {0o40755: False, 0o40775: True, 0o40757: True, 0o100444: False, 0o120777: False}
    for mode, is_open in modes.items():
        assert replace(ENTRY, mode=mode).open_to_others is is_open


@pytest.mark.parametrize(
    ("changes", "is_open"),
    [
        ({}, False),
        ({"size": 1}, True),
        ({"links": 2}, True),
        ({"mode": 0o40666}, True),
        ({"mode": 0o40777, "size": 6}, True),
        ({"mode": 0o10666}, False),
        ({"mode": 0o140666}, False),
        ({"base_name": f"{'0c' * 16}-Cargo"}, True),
    ],
)
def test_an_empty_file_where_a_lock_belongs_is_no_output_of_others(
    changes: dict[str, Any], *, is_open: bool
) -> None:
    planted = replace(ENTRY, base_name=f"{'0c' * 16}-x.lock", mode=0o100666, size=0, links=1)
    assert replace(planted, **changes).open_to_others is is_open


@pytest.mark.parametrize(
    ("changes", "is_ours"),
    [
        ({}, True),
        ({"uid": 30001}, False),
        ({"mode": 0o40755}, False),
        ({"mode": 0o120700}, False),
        ({"mode": 0o100700}, False),
        ({"mode": 0o40710}, False),
        ({"mode": 0o40500}, True),
        ({"mode": 0o41700}, True),
        ({"mode": 0o42700}, True),
        ({"base_name": "tmp-1-0"}, False),
        ({"base_name": f"x{PRIVATE_PREFIX}1-0"}, False),
    ],
)
def test_a_private_directory_is_one_that_no_build_user_can_make(
    changes: dict[str, Any], *, is_ours: bool
) -> None:
    private = replace(ENTRY, base_name=f"{PRIVATE_PREFIX}1-0", mode=0o40700)
    assert is_private(replace(private, **changes), STORE_UID) is is_ours


def test_another_inode_device_or_owner_is_another_object() -> None:
    assert ENTRY.same_object(replace(ENTRY, base_name="b", mode=0, ctime=5.0, links=9, size=0))
    for other in (
        replace(ENTRY, file_id=FileId(9, 2)),
        replace(ENTRY, file_id=FileId(1, 9)),
        replace(ENTRY, uid=9),
    ):
        assert not ENTRY.same_object(other)


def test_what_is_no_directory_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link", "absent"):
        with pytest.raises(StoreUnreadableError, match=name):
            open_directory(f"{tmp_path}/{name}")


# What is exactly a lock file as Nix leaves it; everything else of that name is not.


LOCK = f"{HASH}-a.lock"


def _lock(place: ThrowawayStore) -> Entry:
    place.add_lock(LOCK)
    return _seen(place, LOCK)


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


def test_a_store_that_cannot_be_listed_is_not_taken_for_an_empty_one(store_fd: int) -> None:
    for left in range(2):
        with descriptors_left(left), pytest.raises(StoreUnreadableError) as refused:
            list(each_name(store_fd))
        assert str(refused.value) == "cannot list the store directory: too many open files"
    assert list(each_name(store_fd))
