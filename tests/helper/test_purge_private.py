# SPDX-License-Identifier: MIT
import errno
import os
from collections.abc import Callable

import pytest

from helper.bench import picture
from helper.child import (
    beside,
    can_forbid_renameat2,
    forbid_renameat2,
    in_child,
    mount,
    needs_root,
    take_own_mounts,
    traced,
)
from helper.trees import left_private, take_and_purge, taken, write
from storewarden.helper.purge import (
    Purged,
    new_private,
    old_private,
    purge,
    put_back,
    remove_from_store,
)
from storewarden.host import rename_exclusive
from storewarden.store.entries import PRIVATE_PREFIX, open_directory
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

NAME = f"{'0' * 32}-a"
OLD = f"{PRIVATE_PREFIX}1-0"


def refused(place: ThrowawayStore, store_fd: int) -> bool:
    """Whether the old private directory is not taken for ours, and stays just as it is."""
    before = picture(place.store_dir.path)
    with old_private(store_fd, OLD) as private:
        given = private
    return given is None and picture(place.store_dir.path) == before


def test_a_private_directory_is_nobody_elses(place: ThrowawayStore, store_fd: int) -> None:
    with new_private(store_fd) as private:
        found = os.stat(place.path(private.name))
        assert (found.st_mode & 0o7777, found.st_uid) == (0o700, os.geteuid())
        with old_private(store_fd, private.name) as second:
            assert second is None
    assert not left_private(place)


def test_a_store_that_hands_down_its_group_hinders_nothing(
    place: ThrowawayStore, store_fd: int
) -> None:
    os.chmod(place.store_dir.path, 0o3775)  # noqa: S103 - so, but for one bit, is Nix's own
    write(place.path(NAME))
    with taken(place, NAME) as private:
        assert os.stat(place.path(private.name)).st_mode & 0o7777 == 0o2700
    with old_private(store_fd, private.name) as again:
        assert again is not None
        assert purge(again, Purged()).files == 1
    assert not left_private(place)


def test_no_name_is_used_twice(store_fd: int) -> None:
    names = set()
    for _ in range(50):
        with new_private(store_fd) as private:
            names.add(private.name)
    assert len(names) == 50
    assert all(name.startswith(f"{PRIVATE_PREFIX}{os.getpid()}-") for name in names)


def test_what_was_not_purged_waits_in_its_private_directory(
    place: ThrowawayStore, store_fd: int
) -> None:
    write(place.path(NAME))
    with taken(place, NAME) as private:
        name = private.name
    assert left_private(place) == [name]
    with old_private(store_fd, name) as again:
        assert again is not None
        assert os.listdir(again.fd) == [NAME]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o710, 0o701])
def test_one_that_others_may_enter_is_not_ours(
    mode: int, place: ThrowawayStore, store_fd: int
) -> None:
    os.mkdir(place.path(OLD))
    os.chmod(place.path(OLD), mode)
    assert refused(place, store_fd)


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o500, 0o600, 0o1700, 0o2700])
def test_one_that_an_odd_umask_made_is_gone_on_with(
    mode: int, place: ThrowawayStore, store_fd: int
) -> None:
    os.mkdir(place.path(OLD))
    write(f"{place.path(OLD)}/{NAME}")
    os.chmod(place.path(OLD), mode)
    with old_private(store_fd, OLD) as private:
        assert private is not None
        assert purge(private, Purged()).files == 1
    assert not left_private(place)


@needs_root
def test_one_of_another_owner_is_not_ours(place: ThrowawayStore, store_fd: int) -> None:
    os.mkdir(place.path(OLD), 0o700)
    write(f"{place.path(OLD)}/{NAME}")
    os.chown(place.path(OLD), place.builder, place.builder)
    assert refused(place, store_fd)


@needs_root
def test_one_that_something_is_mounted_on_is_not_ours(place: ThrowawayStore) -> None:
    os.mkdir(place.path(OLD), 0o700)

    def below_a_mount() -> bool:
        take_own_mounts()
        mount("-t", "tmpfs", "-o", "mode=700", "none", place.path(OLD))
        write(f"{place.path(OLD)}/{NAME}")
        return refused(place, open_directory(place.store_dir.path))

    assert in_child(below_a_mount)


def test_one_whose_lock_is_held_is_somebody_at_work(place: ThrowawayStore, store_fd: int) -> None:
    os.mkdir(place.path(OLD), 0o700)
    write(f"{place.path(OLD)}/{NAME}")
    with holding(place.path(OLD)):
        assert refused(place, store_fd)
    assert not refused(place, store_fd)


def _link(place: ThrowawayStore, outside: str) -> None:
    os.symlink(outside, place.path(OLD))


def _file(place: ThrowawayStore, _: str) -> None:
    write(place.path(OLD))


def _fifo(place: ThrowawayStore, _: str) -> None:
    os.mkfifo(place.path(OLD), 0o700)


@pytest.mark.parametrize("make", [_link, _file, _fifo])
def test_what_is_only_called_so_is_not_ours(
    make: Callable[[ThrowawayStore, str], None], place: ThrowawayStore, store_fd: int
) -> None:
    outside = f"{place.state_dir}/outside"
    os.mkdir(outside, 0o700)
    write(f"{outside}/file")
    make(place, outside)
    assert refused(place, store_fd)
    assert os.listdir(outside) == ["file"]


def _dangling(path: str) -> None:
    os.symlink("nowhere", path)


@pytest.mark.parametrize("make", [write, os.mkdir, _dangling, os.mkfifo])
def test_putting_back_never_overwrites(
    make: Callable[[str], None], place: ThrowawayStore, store_fd: int
) -> None:
    os.mkdir(place.path(NAME))
    with taken(place, NAME) as private:
        make(place.path(NAME))
        before = picture(place.store_dir.path)
        with pytest.raises(OSError, match="File exists") as refusal:
            put_back(store_fd, NAME, private)
        assert refusal.value.errno == errno.EEXIST
        assert picture(place.store_dir.path) == before


def test_taking_never_overwrites(place: ThrowawayStore, store_fd: int) -> None:
    os.mkdir(place.path(NAME))
    with taken(place, NAME) as private:
        os.mkdir(place.path(NAME))
        before = picture(place.store_dir.path)
        with pytest.raises(FileExistsError):
            remove_from_store(store_fd, NAME, private)
        assert picture(place.store_dir.path) == before


def test_what_was_put_back_is_what_was_taken(place: ThrowawayStore, store_fd: int) -> None:
    place.add_output(place.invent("x"))
    before = picture(place.store_dir.path)
    with taken(place, place.invent("x").base_name) as private:
        put_back(store_fd, place.invent("x").base_name, private)
    assert picture(place.store_dir.path) == before


def test_what_was_put_back_is_on_disk_before_that_is_put_on_record(
    place: ThrowawayStore, store_fd: int
) -> None:
    write(place.path(NAME))
    with taken(place, NAME) as private:
        order = traced(
            lambda: put_back(store_fd, NAME, private),
            rename_exclusive.__name__,
            "fsync",
            "put_back",
        )
    assert order == [rename_exclusive.__name__, "fsync", "put_back"]


def test_an_empty_private_directory_that_was_collected_is_no_failure(
    place: ThrowawayStore, store_fd: int
) -> None:
    with new_private(store_fd) as private:
        os.rmdir(place.path(private.name))
    assert not left_private(place)


def test_what_is_not_there_cannot_be_taken(place: ThrowawayStore) -> None:
    with pytest.raises(FileNotFoundError):
        take_and_purge(place, NAME)
    assert not left_private(place)


def test_one_that_a_collector_takes_before_its_lock_is_held_is_not_used(
    place: ThrowawayStore, store_fd: int
) -> None:
    def collect() -> None:
        (name,) = left_private(place)
        os.rmdir(place.path(name))

    with (
        beside([collect], "mkdir"),
        pytest.raises(OSError, match="the private directory was taken away"),
        new_private(store_fd),
    ):
        pytest.fail("it was used")


@can_forbid_renameat2
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_a_kernel_or_file_system_that_cannot_rename_so_overwrites_nothing_either(
    error: int, place: ThrowawayStore, store_fd: int
) -> None:
    write(place.path(NAME), "dead")

    def take_and_put_back() -> list[str]:
        forbid_renameat2(error)
        with pytest.raises(OSError, match=r"not implemented|Invalid|not supported"):
            rename_exclusive(store_fd, NAME, store_fd, f"{NAME}-2")
        seen = []
        with new_private(store_fd) as private:
            remove_from_store(store_fd, NAME, private)
            write(place.path(NAME), "new")
            with pytest.raises(FileExistsError):
                put_back(store_fd, NAME, private)
            for _ in range(2):
                with open(place.path(NAME), encoding="ascii") as file:
                    seen.append(file.read())
                os.unlink(place.path(NAME))
                if len(seen) == 1:
                    put_back(store_fd, NAME, private)
        return seen

    assert in_child(take_and_put_back) == ["new", "dead"]
    assert not left_private(place)


@can_forbid_renameat2
def test_what_may_not_be_renamed_is_renamed_in_no_other_way(
    place: ThrowawayStore, store_fd: int
) -> None:
    write(place.path(NAME))

    def take() -> list[str]:
        forbid_renameat2(errno.EACCES)
        with new_private(store_fd) as private, pytest.raises(PermissionError):
            remove_from_store(store_fd, NAME, private)
        return os.listdir(store_fd)

    assert NAME in in_child(take)
