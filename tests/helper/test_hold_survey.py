# SPDX-License-Identifier: MIT

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from helper.bench import names, out_of_reach, records, request, run
from helper.child import in_child, mount, needs_root, put_layers, take_own_mounts
from storewarden import host
from storewarden.errors import StoreUnreadableError
from storewarden.helper.hold import survey
from storewarden.host import Mount, mount_of
from storewarden.protocol import RemoveRequest
from storewarden.store.entries import EntryKind, FileId
from storewarden.store.paths import Deriver, StorePath, output_lock, path_lock
from storewarden.store.store import NO, Fact
from storewarden.throwaway import ThrowawayStore
from sweeps import look_at
from tables import execute


def derivers(place: ThrowawayStore, store_fd: int, path: StorePath) -> dict[StorePath, Deriver]:
    requests = [RemoveRequest(path.base_name, EntryKind.OUTPUT, FileId(1, 1))]
    found = survey(place.as_store(), store_fd, requests).origins
    return {path: origin.deriver for path, origin in found.items()}


def test_nix_is_asked_once_about_all(place: ThrowawayStore, store_fd: int) -> None:
    paths = [place.strand(place.add_derivation(name)) for name in "abc"]
    asked: list[Sequence[StorePath]] = []

    def ask(paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        asked.append(paths)
        return dict.fromkeys(paths, NO)

    requests = [request(place, path.base_name) for path in paths]
    seen = survey(replace(place.as_store(), ask_nix=ask), store_fd, requests)
    assert seen.nix == dict.fromkeys(paths, NO)
    assert asked == [paths]


def test_a_deriver_is_found_by_its_lock_alone(place: ThrowawayStore, store_fd: int) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation, "dev")
    assert derivers(place, store_fd, path) == {path: Deriver(derivation, "dev")}


def test_a_deriver_is_found_by_its_file_alone(place: ThrowawayStore, store_fd: int) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation, "dev")
    os.unlink(place.path(output_lock(derivation, "dev")))
    assert derivers(place, store_fd, path) == {path: Deriver(derivation, "dev")}


def test_a_deriver_is_found_by_a_live_temp_root_alone(place: ThrowawayStore, store_fd: int) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    os.unlink(place.path(output_lock(derivation, "out")))
    roots = f"{place.state_dir}/temproots/1"
    with open(roots, "w", encoding="ascii") as file:
        file.write(place.path(derivation.base_name) + "\0")
    assert derivers(place, store_fd, path) == {}
    place.hold(roots)
    assert derivers(place, store_fd, path) == {path: Deriver(derivation, "out")}


def test_a_deriver_is_found_in_the_database(place: ThrowawayStore, store_fd: int) -> None:
    derivation, path = place.add_derivation("x"), place.invent("x-bin")
    full = (place.path(derivation.base_name), place.path(path.base_name))
    execute(
        place,
        "INSERT INTO DerivationOutputs"  # noqa: S608 - the test's own names
        f" SELECT id, 'bin', '{full[1]}' FROM ValidPaths WHERE path = '{full[0]}'",
    )
    assert derivers(place, store_fd, path) == {path: Deriver(derivation, "bin")}


def refused(place: ThrowawayStore, text: str) -> None:
    """The whole batch is refused, with that reason, and nothing is touched."""
    path = place.strand(place.invent("x.drv")).base_name
    before = names(place)
    with pytest.raises(StoreUnreadableError, match=text):
        run(place, path)
    assert names(place) == before
    assert not records(place)


def test_an_empty_database_is_not_believed(place: ThrowawayStore) -> None:
    execute(place, "DELETE FROM ValidPaths")
    refused(place, "knows no valid path at all")


def test_in_a_new_store_without_any_path_a_stale_lock_goes(place: ThrowawayStore) -> None:
    for number in range(3):
        os.unlink(place.path(place.invent(f"valid-{number}").base_name))
    execute(place, "DELETE FROM ValidPaths")
    lock = f"{place.invent('x').base_name}.lock"
    place.add_lock(lock)
    assert [outcome.status for outcome in run(place, lock)] == ["removed"]


@pytest.mark.parametrize("valid", [1, 2, 101])
def test_however_few_or_many_paths_are_valid_what_is_not_goes(
    valid: int, place: ThrowawayStore
) -> None:
    stranded = [place.strand(place.invent(f"x-{number}.drv")) for number in range(3)]
    for number in range(valid, 3):
        os.unlink(place.path(place.invent(f"valid-{number}").base_name))
        execute(place, f"DELETE FROM ValidPaths WHERE path LIKE '%-valid-{number}'")  # noqa: S608 - a number
    for number in range(3, valid):
        place.add_valid(f"valid-{number}")
    for path in stranded:
        os.chown(place.path(path.base_name), os.geteuid(), -1)  # which counts against the database
    lock = path_lock(place.invent("y"))
    place.add_lock(lock)
    assert [outcome.status for outcome in run(place, lock)] == ["removed"]


def test_a_database_of_nearly_nothing_that_is_there_is_not_believed(
    place: ThrowawayStore,
) -> None:
    for number in range(101):
        place.add_file(place.invent(f"stranger-{number}").base_name)
    refused(place, "too many to be debris")


@needs_root
def test_what_a_build_user_has_made_stops_nobody(place: ThrowawayStore) -> None:
    for number in range(150):
        path = place.invent(f"flood-{number}").base_name
        place.add_file(path)
        os.chown(place.path(path), place.builder, place.builder)
    path = place.strand(place.add_derivation("x")).base_name
    assert look_at(place)[path].kind is EntryKind.OUTPUT
    assert run(place, path)[-1].status == "removed"


@needs_root
@pytest.mark.parametrize("end", ["", ".lock"])
def test_what_a_build_user_has_made_hides_no_foreign_database(
    end: str, place: ThrowawayStore
) -> None:
    for number in range(150):
        place.add_file(place.invent(f"stranger-{number}").base_name)
        path = place.invent(f"flood-{number}{end}").base_name
        place.add_file(path)
        os.chown(place.path(path), place.builder, place.builder)
    with pytest.raises(StoreUnreadableError, match="150 of 15"):
        look_at(place)
    refused(place, "too many to be debris")


def test_many_lock_files_and_temporaries_are_no_strangers(place: ThrowawayStore) -> None:
    for number in range(150):
        place.add_lock(f"{place.invent(f'a-{number}').base_name}.lock")
        place.add_file(f"tmp-{number}-0")
    path = place.strand(place.add_derivation("x")).base_name
    assert run(place, path)[-1].status == "removed"


@pytest.mark.parametrize("schema", ["9", "11", "", "10\n10", "ten"])
def test_another_schema_is_not_believed(schema: str, place: ThrowawayStore) -> None:
    with open(f"{place.state_dir}/db/schema", "w", encoding="ascii") as file:
        file.write(schema)
    refused(place, "only 10 is understood")


def test_where_the_daemon_cannot_be_reached_nothing_is_removed(place: ThrowawayStore) -> None:
    out_of_reach(place)
    refused(place, "nix-daemon cannot be reached")


def test_the_file_system_is_that_of_the_longest_mount_point_above() -> None:
    table = (("/", "ext4"), ("/nix", "xfs"), ("/nix/store", "overlay"), ("/nix/store2", "nfs"))
    seen = [Mount(*one) for one in table]
    assert mount_of("/nix/store", seen) == ("/nix/store", "overlay")
    assert mount_of("/nix/store/x", seen) == ("/nix/store", "overlay")
    assert mount_of("/nix/storex", seen) == ("/nix", "xfs")
    assert mount_of("/home", seen) == ("/", "ext4")
    later = Mount("/nix/store", "btrfs")
    assert mount_of("/nix/store", [*seen, later]) == later


@needs_root
def test_a_store_with_layers_is_not_touched(place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("x")).base_name

    def in_own_mounts() -> str:
        take_own_mounts()
        put_layers(place)
        with pytest.raises(StoreUnreadableError) as refusal:
            run(place, path)
        return str(refusal.value)

    assert "is on a file system of type overlay" in in_child(in_own_mounts)
    assert path in names(place)


@needs_root
@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\\134\\012"])
def test_the_name_of_somebody_s_mount_stops_nobody(end: str, place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("x")).base_name
    # processes_of reads the table of mounts as well.
    store = replace(place.as_store(), processes_of=host.processes_of)

    def beside_such_a_mount() -> list[str]:
        take_own_mounts()
        point = f"{place.state_dir}/a{end}b - nfs x rw"
        os.mkdir(point)
        mount("-t", "tmpfs", "none", point)
        return [outcome.status.value for outcome in run(place, path, store=store)]

    assert in_child(beside_such_a_mount) == ["taken", "removed"]


@needs_root
def test_a_store_in_memory_is_as_good_as_any(place: ThrowawayStore) -> None:
    path = place.invent("x")

    def in_own_mounts() -> list[str]:
        take_own_mounts()
        valid = [(name, os.lstat(place.path(name))) for name in names(place) - {".links"}]
        mount("-t", "tmpfs", "-o", "mode=1775", "none", place.store_dir.path)
        for name, _ in valid:
            place.add_file(name)
        place.add_output(path)
        return [outcome.status.value for outcome in run(place, path.base_name)]

    assert in_child(in_own_mounts) == ["taken", "removed"]


def test_the_store_is_listed_from_its_beginning_wherever_others_stand(
    place: ThrowawayStore, store_fd: int
) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    # As after a listing whose rewind has failed: all copies of a descriptor share their place.
    os.lseek(store_fd, 2**63 - 1, os.SEEK_SET)
    with os.scandir(store_fd) as entries:
        assert list(entries) == []
    os.lseek(store_fd, 2**63 - 1, os.SEEK_SET)
    assert derivers(place, store_fd, path) == {path: Deriver(derivation, "out")}


def test_temp_roots_that_cannot_be_read_could_hide_a_derivation(place: ThrowawayStore) -> None:
    path = place.invent("of-a-hidden-derivation")
    place.add_output(path)
    os.symlink("nowhere", f"{place.state_dir}/temproots/1")
    with pytest.raises(StoreUnreadableError, match="temproots/1"):
        run(place, path.base_name)
    assert path.base_name in names(place)


# A database that is not this store's is not believed, however large it is.


def test_a_database_of_things_that_are_not_there_is_not_believed(place: ThrowawayStore) -> None:
    path = place.strand(place.invent("x.drv")).base_name
    for number in range(3):
        os.unlink(place.path(place.invent(f"valid-{number}").base_name))
    with pytest.raises(StoreUnreadableError, match="no path that the database knows"):
        run(place, path)
    assert path in names(place)
    assert not records(place)


def test_the_database_of_another_store_on_this_machine_is_not_believed(
    place: ThrowawayStore, near: ThrowawayStore
) -> None:
    for number in range(8):
        near.add_valid(f"more-{number}")
    path = place.strand(place.invent("x.drv")).base_name
    store = replace(
        place.as_store(),
        state_dir=near.state_dir,
        ask_nix=lambda paths: dict.fromkeys(paths, NO),
    )
    with pytest.raises(StoreUnreadableError, match="no path that the database knows"):
        run(place, path, store=store)
    assert path in names(place)
    assert not records(place)
