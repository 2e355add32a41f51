# SPDX-License-Identifier: MIT
"""A request only points: whatever it says, it cannot make the engine remove what is wanted."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest

from helper.bench import (
    at,
    kept,
    log_of,
    names,
    picture,
    records,
    request,
    run,
    run_requests,
)
from helper.child import in_child, mount, needs_root, take_own_mounts
from helper.trees import left_private, write
from storewarden.errors import AuditUnavailableError, BadStorePathError
from storewarden.protocol import RemoveRequest
from storewarden.store.entries import EntryKind, FileId
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore


@pytest.mark.parametrize("member", ["inode", "device"])
def test_another_entry_than_the_one_that_was_seen_stays(
    member: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    asked = request(place, scratch.base_name)
    other = asked.file_id._replace(**{member: getattr(asked.file_id, member) + 1})
    reasons = kept(place, replace(asked, file_id=other)).reasons
    assert reasons == ("it is no longer the entry that was looked at",)


@pytest.mark.parametrize("kind", [kind for kind in EntryKind if kind is not EntryKind.OUTPUT])
def test_a_wrong_kind_is_refused(
    kind: EntryKind, place: ThrowawayStore, scratch: StorePath
) -> None:
    (reason,) = kept(place, replace(request(place, scratch.base_name), kind=kind)).reasons
    assert reason == f"it is of kind output, not {kind}"


@needs_root
def test_whose_owner_this_namespace_does_not_show_is_not_known_by_its_origin(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    os.chown(place.path(scratch.base_name), 65534, 65534)
    shown = place.as_store()
    asked = request(place, scratch.base_name, shown)
    assert asked.kind is EntryKind.OUTPUT
    (reason,) = kept(place, asked, replace(shown, hidden_uid=65534)).reasons
    assert reason == "it is of kind foreign, not output"


@pytest.mark.parametrize("kind", [EntryKind.OUTPUT, EntryKind.LOCK])
def test_a_valid_path_stays_whatever_it_is_called(kind: EntryKind, place: ThrowawayStore) -> None:
    path = place.add_valid("wanted").base_name
    kept(place, replace(request(place, path), kind=kind))


def test_a_valid_path_of_a_build_user_stays(place: ThrowawayStore) -> None:
    path = place.invent("wanted")
    place.add_output(path)
    place.register(path)
    assert kept(place, path.base_name).reasons == ("Nix says it is a valid path",)


@pytest.mark.parametrize(
    "name", [".links", "", ".", "..", "/etc", "../x", "tmp-storewarden-1-0", "lost+found", "a\0b"]
)
def test_what_is_no_store_path_is_refused_even_here(name: str, place: ThrowawayStore) -> None:
    before = picture(place.store_dir.path)
    with pytest.raises(BadStorePathError):
        run_requests(place, [RemoveRequest(name, EntryKind.OUTPUT, FileId(1, 1))])
    assert picture(place.store_dir.path) == before


def test_what_is_gone_has_vanished(place: ThrowawayStore, scratch: StorePath) -> None:
    asked = request(place, scratch.base_name)
    os.rename(place.path(scratch.base_name), f"{place.state_dir}/away")
    assert [outcome.status for outcome in run_requests(place, [asked])] == ["vanished"]
    assert not records(place)


def _missing(log: str) -> None:
    os.symlink(f"{log}-nowhere", os.path.dirname(log))


def _link(log: str) -> None:
    os.mkdir(os.path.dirname(log))
    os.symlink(f"{log}-elsewhere", log)


def _directory(log: str) -> None:
    os.makedirs(log)


@pytest.mark.parametrize("make", [_missing, _link, _directory])
def test_without_an_audit_log_nothing_is_removed(
    make: Callable[[str], None], place: ThrowawayStore, scratch: StorePath
) -> None:
    make(log_of(place))
    before = picture(place.store_dir.path)
    with pytest.raises(AuditUnavailableError):
        run(place, scratch.base_name)
    assert picture(place.store_dir.path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every directory")
def test_a_store_that_may_not_be_written_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    os.chmod(place.store_dir.path, 0o500)
    assert "permission denied" in kept(place, scratch.base_name).reasons[0]
    os.chmod(place.store_dir.path, 0o700)


@needs_root
@pytest.mark.parametrize("locks_there", [True, False])
def test_a_store_that_is_mounted_read_only_stays(
    place: ThrowawayStore, scratch: StorePath, *, locks_there: bool
) -> None:
    if locks_there:
        place.add_lock(f"{scratch.base_name}.lock")

    def in_own_mounts() -> list[str]:
        take_own_mounts()
        mount("--bind", place.store_dir.path, place.store_dir.path)
        mount("-o", "remount,bind,ro", place.store_dir.path)
        (outcome,) = run(place, scratch.base_name)
        assert outcome.unproved
        return list(outcome.reasons)

    before = picture(place.store_dir.path)
    (reason,) = in_child(in_own_mounts)
    assert "read-only file system" in reason
    assert picture(place.store_dir.path) == before
    assert not records(place)


@needs_root
def test_where_not_even_a_directory_can_be_made_nothing_is_begun(place: ThrowawayStore) -> None:
    path = place.invent("x")

    def fill() -> None:
        with suppress(OSError):
            for number in count():
                write(place.path(f"filler-{number}"))

    def on_a_tiny_disk() -> list[list[str]]:
        take_own_mounts()
        valid = names(place) - {".links"}
        mount("-t", "tmpfs", "-o", "mode=1775,nr_inodes=100", "none", place.store_dir.path)
        for name in valid:
            place.add_file(name)
        place.add_output(path)
        before = picture(place.path(path.base_name))
        outcomes = run(place, path.base_name, checkpoint=at("proved", fill))
        assert picture(place.path(path.base_name)) == before
        assert not left_private(place)
        return [[one.status.value, *one.reasons] for one in outcomes]

    (outcome,) = in_child(on_a_tiny_disk)
    assert outcome == ["failed", "the disk is full, not even a directory can be made in the store"]
    assert not records(place)


@pytest.mark.parametrize("name", ["link", "x.lock"])
def test_an_entry_that_is_a_link_goes_and_not_what_it_points_to(
    name: str, place: ThrowawayStore
) -> None:
    wanted = place.add_valid("wanted")
    path = place.invent(name)
    os.symlink(wanted.base_name, place.path(path.base_name))
    os.lchown(place.path(path.base_name), place.builder, -1)
    assert run(place, path.base_name)[-1].status == "removed"
    with open(place.path(wanted.base_name), encoding="utf-8") as file:
        assert file.read() == "valid\n"
    assert not os.path.lexists(place.path(path.base_name))


def test_debris_that_shares_files_with_a_valid_path_leaves_them_as_they_are(
    place: ThrowawayStore,
) -> None:
    wanted = place.add_valid("wanted")
    path = place.invent("sharing")
    place.add_output(path)
    os.link(place.path(wanted.base_name), f"{place.path(path.base_name)}/bin/shared")
    before = os.stat(place.path(wanted.base_name))
    assert run(place, path.base_name)[-1].status == "removed"
    after = os.stat(place.path(wanted.base_name))
    assert (after.st_mode, after.st_uid, after.st_size, after.st_mtime, after.st_nlink) == (
        *(before.st_mode, before.st_uid, before.st_size, before.st_mtime),
        1,
    )


def test_nothing_is_asked_of_an_empty_request(place: ThrowawayStore, scratch: StorePath) -> None:
    write(f"{place.state_dir}/db/unrelated")
    os.rename(f"{place.state_dir}/db/db.sqlite", f"{place.state_dir}/db/away")
    assert run(place) == []
    assert scratch.base_name in names(place)
    assert not left_private(place)
