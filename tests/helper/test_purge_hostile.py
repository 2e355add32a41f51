# SPDX-License-Identifier: MIT
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from helper.bench import picture
from helper.child import (
    as_ordinary_user,
    in_child,
    kill_self_after,
    killed,
    mount,
    needs_root,
    take_own_mounts,
)
from helper.trees import dig, left_private, spread, take_and_purge, taken, write
from storewarden.helper.purge import Purged, old_private, purge
from storewarden.helper.resume import purged_outcome
from storewarden.store.entries import open_directory
from storewarden.throwaway import ThrowawayStore

NAME = f"{'0' * 32}-a"
WRITER = """
import os
print("writing", flush=True)
number = 0
while True:
    number += 1
    try:
        os.mkdir(f"w{number}")
        os.close(os.open(f"w{number}/f", os.O_CREAT))
        os.close(os.open(f"f{number}", os.O_CREAT))
    except OSError:
        pass
"""
SWAPPER = """
import os, sys
here = os.open(".", os.O_RDONLY)
def rename(a, b):
    try:
        os.rename(a, b, src_dir_fd=here, dst_dir_fd=here)
    except OSError:
        pass
def make():
    try:
        os.mkdir("d", dir_fd=here)
        os.symlink(sys.argv[1], "link", dir_fd=here)
        os.mkdir("d/deep", dir_fd=here)
        os.symlink(sys.argv[1], "d/deep/link", dir_fd=here)
    except OSError:
        pass
make()
print("swapping", flush=True)
while True:
    rename("d", "aside"); rename("link", "d"); rename("d", "link"); rename("aside", "d")
    make()
"""


@contextmanager
def process_inside(directory: str, program: str, *words: str) -> Iterator[None]:
    """While a process that stands in that directory goes on with its mischief."""
    command = [sys.executable, "-I", "-S", "-c", program, *words]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def go_on_purging(place: ThrowawayStore) -> Purged:
    """What the next run does with the one private directory that was left."""
    (name,) = left_private(place)
    store_fd = open_directory(place.store_dir.path)
    try:
        with old_private(store_fd, name) as private:
            assert private is not None
            return purge(private, Purged())
    finally:
        os.close(store_fd)


def test_a_live_writer_loses_its_place_in_the_store_at_once(place: ThrowawayStore) -> None:
    spread(place.path(NAME), 3, 3)
    with process_inside(place.path(NAME), WRITER):
        started = time.monotonic()
        take_and_purge(place, NAME)
        assert time.monotonic() - started < 60
        assert not os.path.lexists(place.path(NAME))
    if left_private(place):
        assert go_on_purging(place).failures == 0
    assert not left_private(place)


def test_a_swapped_in_link_to_a_victim_does_it_no_harm(place: ThrowawayStore) -> None:
    victim = f"{place.state_dir}/victim"
    spread(victim, 3, 3)
    before = picture(victim)
    for number in range(12):
        os.makedirs(f"{place.path(NAME)}/x/y")
        spread(f"{place.path(NAME)}/more", 5, 5)
        with (
            process_inside(place.path(NAME), SWAPPER, victim),
            process_inside(f"{place.path(NAME)}/x", SWAPPER, victim),
        ):
            take_and_purge(place, NAME)
            assert not os.path.lexists(place.path(NAME))
        if left_private(place):
            assert go_on_purging(place).failures == 0
        assert picture(victim) == before, f"round {number}"
    assert not left_private(place)


def test_a_purge_that_was_killed_is_gone_on_with(place: ThrowawayStore) -> None:
    dig(place.path(NAME), 500)
    spread(f"{place.path(NAME)}/wide", 50, 10)

    def die_while_purging() -> None:
        with taken(place, NAME) as private:
            kill_self_after(100, "unlink")
            purge(private, Purged())

    for _ in range(3):
        killed(die_while_purging if not left_private(place) else lambda: _die_again(place))
    assert not os.path.lexists(place.path(NAME))
    purged = go_on_purging(place)
    assert (purged.failures, purged.files) == (0, 200)
    assert not left_private(place)


def _die_again(place: ThrowawayStore) -> None:
    kill_self_after(100, "unlink")
    go_on_purging(place)


def test_a_purge_that_takes_too_long_leaves_the_rest_to_the_next_run(
    place: ThrowawayStore,
) -> None:
    spread(f"{place.path(NAME)}/wide", 20, 10)
    with taken(place, NAME) as private:
        late = purge(private, Purged(until=0.0))
    told = purged_outcome(NAME, late)
    assert (told.status, told.reasons) == (
        "partial",
        ("it takes long, the next run goes on with it",),
    )
    purged = go_on_purging(place)
    assert purged_outcome(NAME, purged).status == "removed"
    assert late.files + purged.files == 200
    assert not left_private(place)


@needs_root
def test_a_mount_inside_is_not_crossed(place: ThrowawayStore) -> None:
    victim = f"{place.state_dir}/victim"
    spread(victim, 2, 2)
    for path in ("a/bound", "a/b/memory"):
        os.makedirs(f"{place.path(NAME)}/{path}")
    for name in ("file", "a/b/bound-file"):
        write(f"{place.path(NAME)}/{name}")

    def in_own_mounts() -> tuple[int, str, bool, list[str]]:
        take_own_mounts()
        mount("--bind", victim, f"{place.path(NAME)}/a/bound")
        mount("--bind", f"{victim}/0/0", f"{place.path(NAME)}/a/b/bound-file")
        mount("-t", "tmpfs", "none", f"{place.path(NAME)}/a/b/memory")
        memory = os.open(f"{place.path(NAME)}/a/b/memory", os.O_RDONLY)
        write(f"{place.path(NAME)}/a/b/memory/kept")
        before = picture(victim)
        purged = take_and_purge(place, NAME)
        gone = not os.path.lexists(place.path(NAME))
        assert picture(victim) == before
        return purged.failures, purged.reason, gone, os.listdir(memory)

    failures, reason, gone, kept = in_child(in_own_mounts)
    assert failures > 0
    assert reason == "device or resource busy"
    assert gone
    assert kept == ["kept"]
    # The mounts were that process's own: without them the rest can go.
    assert go_on_purging(place).failures == 0
    assert sorted(os.listdir(victim)) == ["0", "1"]
    assert not left_private(place)


@needs_root
def test_all_but_what_cannot_go_goes_however_deep_it_lies(place: ThrowawayStore) -> None:
    top = place.path(NAME)
    for name in "ab":
        os.makedirs(f"{top}/{name}")
    with os.scandir(top) as entries:
        first, then = (entry.name for entry in entries)  # as they are come upon
    deep = f"{top}/{then}/" + "d/" * 39
    os.makedirs(deep)
    write(f"{deep}/file")

    def beside_a_mount() -> list[int]:
        take_own_mounts()
        mount("-t", "tmpfs", "none", f"{top}/{first}")
        purged = take_and_purge(place, NAME)
        return [purged.files, purged.directories, purged.failures]

    # What is left is the mount and the directory that it is in.
    assert in_child(beside_a_mount) == [1, 40, 2]
    assert go_on_purging(place).directories == 2
    assert not left_private(place)


def test_a_directory_that_cannot_be_moved_up_keeps_no_other() -> None:
    def purge_beside_one(directory: str) -> list[int]:
        place = ThrowawayStore.create(directory)
        top = place.path(NAME)
        for name in "ab":
            os.makedirs(f"{top}/{name}/d")
        with os.scandir(top) as entries:
            first, then = (entry.name for entry in entries)
        write(f"{top}/{then}/d/file")
        os.chmod(f"{top}/{first}", 0o555)  # noqa: S103 - only root may give it another `..`
        purged = take_and_purge(place, NAME)
        return [purged.files, purged.directories, purged.failures]

    # What is left is that directory and the one that it is in.
    assert as_ordinary_user(purge_beside_one) == [1, 2, 2]


@needs_root
def test_a_tree_that_cannot_lose_its_name_is_left_whole_and_counted(place: ThrowawayStore) -> None:
    os.mkdir(place.path(NAME))

    def with_a_mount_on_it() -> list[object]:
        take_own_mounts()
        with taken(place, NAME) as private:
            top = place.path(f"{private.name}/{NAME}")
            mount("-t", "tmpfs", "none", top)
            write(f"{top}/kept")
            purged = purge(private, Purged())
            return [purged.failures, purged.reason, purged.files, os.listdir(top)]

    assert in_child(with_a_mount_on_it) == [1, "device or resource busy", 0, ["kept"]]


@needs_root
def test_a_mount_point_itself_stays_in_the_store(place: ThrowawayStore) -> None:
    os.mkdir(place.path(NAME))

    def in_own_mounts() -> list[object]:
        take_own_mounts()
        mount("-t", "tmpfs", "none", place.path(NAME))
        write(f"{place.path(NAME)}/kept")
        refused = 0
        try:
            take_and_purge(place, NAME)
        except OSError as cause:
            refused = cause.errno or 0
        return [os.strerror(refused), os.listdir(place.path(NAME))]

    assert in_child(in_own_mounts) == ["Device or resource busy", ["kept"]]
    assert not left_private(place)
