# SPDX-License-Identifier: MIT

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import repeat

import pytest

from helper.bench import at, can_be_locked, names, picture, run
from helper.child import beside, in_child, mount, needs_root, take_own_mounts, traced
from storewarden.helper.hold import (
    HeldLock,
    NotHeldError,
    hold_lock_file,
    hold_path,
    remove_lock_file,
)
from storewarden.store.entries import open_directory
from storewarden.store.paths import output_lock
from storewarden.store.store import Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

NAME = f"{'0' * 32}-a.lock"
WAITER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print("waiting", flush=True)
fcntl.flock(fd, fcntl.LOCK_EX)
found = os.fstat(fd)
print(found.st_size, found.st_nlink, flush=True)
"""


def test_a_held_lock_is_seen_and_left(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    place.add_lock(NAME)
    before = picture(place.store_dir.path)
    with holding(place.path(NAME)):
        for hold in (hold_lock_file, hold_path):
            with pytest.raises(NotHeldError) as busy:
                hold(locks, store_fd, NAME)
            assert busy.value.fact == Fact(Known.YES, f"{NAME} is held")
    locks.close()
    assert picture(place.store_dir.path) == before


def test_a_lock_held_shared_is_held(place: ThrowawayStore, store_fd: int, locks: ExitStack) -> None:
    with holding(place.path(NAME), fcntl.LOCK_SH), pytest.raises(NotHeldError) as busy:
        hold_path(locks, store_fd, NAME)
    assert busy.value.fact.known is Known.YES


def test_a_free_lock_is_held_until_the_stack_ends(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    place.add_lock(NAME)
    before = picture(place.store_dir.path)
    assert isinstance(hold_lock_file(locks, store_fd, NAME), HeldLock)
    assert not can_be_locked(place.path(NAME), fcntl.LOCK_SH)
    locks.close()
    assert can_be_locked(place.path(NAME))
    assert picture(place.store_dir.path) == before


def test_a_missing_lock_file_is_not_made_by_looking(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    assert hold_lock_file(locks, store_fd, NAME) is None
    assert not os.path.lexists(place.path(NAME))


def test_a_missing_path_lock_is_made_held_and_removed_again(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    hold_path(locks, store_fd, NAME)
    found = os.stat(place.path(NAME))
    assert (found.st_mode & 0o7777, found.st_size, found.st_uid) == (0o600, 0, os.geteuid())
    assert not can_be_locked(place.path(NAME))
    locks.close()
    assert not os.path.lexists(place.path(NAME))


def test_a_path_lock_that_was_there_stays(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    place.add_lock(NAME)
    before = picture(place.store_dir.path)
    hold_path(locks, store_fd, NAME)
    locks.close()
    assert picture(place.store_dir.path) == before


def _symlink(path: str, outside: str) -> None:
    os.symlink(outside, path)


def _broken_symlink(path: str, outside: str) -> None:
    os.symlink(f"{outside}-nowhere", path)


def _fifo(path: str, _: str) -> None:
    os.mkfifo(path, 0o600)


def _full(path: str, _: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write("d")


def _hard_link(path: str, outside: str) -> None:
    os.link(outside, path)


def _directory(path: str, _: str) -> None:
    os.mkdir(path)


def _socket(path: str, _: str) -> None:
    here = os.path.dirname(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{here}/s")
    os.rename(f"{here}/s", path)


@pytest.mark.parametrize(
    "make", [_symlink, _broken_symlink, _fifo, _full, _hard_link, _directory, _socket]
)
@pytest.mark.parametrize("hold", [hold_lock_file, hold_path])
def test_what_is_no_empty_lock_file_is_unknown_and_untouched(
    make: Callable[[str, str], None],
    hold: Callable[[ExitStack, int, str], HeldLock | None],
    place: ThrowawayStore,
    store_fd: int,
) -> None:
    outside = f"{place.state_dir}/outside"
    with open(outside, "w", encoding="ascii"):
        pass
    make(place.path(NAME), outside)
    before = picture(place.store_dir.path), picture(place.state_dir)
    with ExitStack() as locks:
        with pytest.raises((NotHeldError, OSError)) as refused:
            hold(locks, store_fd, NAME)
        match refused.value:
            case NotHeldError(fact=fact):
                assert fact.known is Known.UNKNOWN
            case OSError(filename=filename):  # which is unknown to who asks
                assert filename == NAME
        assert make is _hard_link or can_be_locked(outside)
    assert (picture(place.store_dir.path), picture(place.state_dir)) == before


@pytest.mark.parametrize("made_here", [True, False])
def test_a_waiter_on_a_removed_lock_sees_the_mark(
    place: ThrowawayStore, store_fd: int, locks: ExitStack, *, made_here: bool
) -> None:
    if not made_here:
        place.add_lock(NAME)
    lock = hold_path(locks, store_fd, NAME)
    command = [sys.executable, "-I", "-S", "-c", WAITER, place.path(NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiter:
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waiting\n"
        if not made_here:
            remove_lock_file(store_fd, lock)
        locks.close()
        assert waiter.stdout.readline() == "1 0\n"
    assert not os.path.lexists(place.path(NAME))


def test_a_lock_file_is_unlinked_before_it_is_marked(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    place.add_lock(NAME)
    lock = hold_lock_file(locks, store_fd, NAME)
    assert isinstance(lock, HeldLock)
    order = traced(lambda: remove_lock_file(store_fd, lock), "unlink", "ftruncate")
    assert order == ["unlink", "ftruncate"]


def test_a_lock_file_that_another_unlinks_first_is_marked_all_the_same(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    place.add_lock(NAME)
    lock = hold_lock_file(locks, store_fd, NAME)
    assert isinstance(lock, HeldLock)
    with beside([lambda: os.unlink(place.path(NAME))], "unlink", before=True):
        remove_lock_file(store_fd, lock)
    found = os.fstat(lock.fd)
    assert (found.st_size, found.st_nlink) == (1, 0)


@pytest.mark.parametrize("hold", [hold_lock_file, hold_path])
def test_a_name_that_leads_out_of_the_store_is_unknown_and_nothing_is_made_there(
    hold: Callable[[ExitStack, int, str], HeldLock | None],
    place: ThrowawayStore,
    store_fd: int,
    locks: ExitStack,
) -> None:
    with pytest.raises(NotHeldError, match="is no name in the store directory") as refused:
        hold(locks, store_fd, f"../{NAME}")
    assert refused.value.fact.known is Known.UNKNOWN
    assert not os.path.lexists(f"{place.store_dir.path}/../{NAME}")


# Path locks among builders that come and go.


def test_a_path_lock_that_always_comes_and_goes_is_unknown_in_the_end(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    path = place.path(NAME)

    def come_or_go() -> None:
        if os.path.exists(path):
            os.unlink(path)
        else:
            place.add_lock(NAME)

    with beside(repeat(come_or_go), "open"), pytest.raises(NotHeldError) as refused:
        hold_path(locks, store_fd, NAME)
    assert refused.value.fact == Fact(Known.UNKNOWN, f"{NAME} changed hands 8 times")
    assert NAME not in names(place)


def test_a_path_lock_that_a_build_makes_first_is_held_and_stays(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    with beside([lambda: place.add_lock(NAME)], "open"):
        hold_path(locks, store_fd, NAME)
    found = os.stat(place.path(NAME))
    assert not can_be_locked(place.path(NAME))
    locks.close()
    assert os.stat(place.path(NAME)) == found
    assert can_be_locked(place.path(NAME))


def test_a_path_lock_that_a_build_made_anew_in_place_of_ours_stays(
    place: ThrowawayStore, store_fd: int, locks: ExitStack
) -> None:
    made: list[int] = []

    def unlink_ours() -> None:
        made.append(os.stat(place.path(NAME)).st_ino)
        os.link(place.path(NAME), f"{place.state_dir}/kept")  # so that no other has its inode
        os.unlink(place.path(NAME))

    missing, ours, missing_again = list, unlink_ours, lambda: place.add_lock(NAME)
    with beside([missing, ours, missing_again], "open"):
        hold_path(locks, store_fd, NAME)
    theirs = os.stat(place.path(NAME))
    assert [theirs.st_ino] != made
    locks.close()
    assert os.stat(place.path(NAME)) == theirs


@needs_root
def test_a_made_lock_that_cannot_be_removed_stays_and_ends_nothing(place: ThrowawayStore) -> None:
    def in_own_mounts() -> bool:
        take_own_mounts()
        store_fd = open_directory(place.store_dir.path)
        with ExitStack() as locks:
            hold_path(locks, store_fd, NAME)
            mount("--bind", place.path(NAME), place.path(NAME))
        return can_be_locked(place.path(NAME))

    assert in_child(in_own_mounts)
    assert os.stat(place.path(NAME)).st_size == 0


def test_a_lock_file_that_is_exchanged_while_its_lock_is_taken_stays(place: ThrowawayStore) -> None:
    lock = output_lock(place.add_derivation("x"), "out")
    place.add_lock(lock)
    first = os.stat(place.path(lock)).st_ino

    def exchange() -> None:
        if os.stat(place.path(lock)).st_ino == first and not can_be_locked(place.path(lock)):
            place.add_lock(f"{lock}.new")
            os.rename(place.path(f"{lock}.new"), place.path(lock))

    with beside(repeat(exchange), "flock"):
        (outcome,) = run(place, lock)
    assert outcome.status == "kept"
    assert "another one took its place" in outcome.reasons[0]
    assert not outcome.unproved
    found = os.stat(place.path(lock))
    assert found.st_ino != first
    assert found.st_size == 0


# Takes and releases a path lock over and over, as pathlocks.cc does, and is alone meanwhile.
BUILDER = """
import contextlib, fcntl, os, sys, time
lock, busy, end = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
clashes = 0
while time.monotonic() < end:
    fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    if os.fstat(fd).st_size == 0:
        try:
            os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
            os.unlink(busy)
        except FileExistsError:
            clashes += 1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        os.write(fd, b"d")
    os.close(fd)
print(clashes)
"""


def clash(busy: str) -> bool:
    """Whether somebody else is at work right now."""
    try:
        os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
        os.unlink(busy)
    except FileExistsError:
        return True
    return False


def test_who_holds_a_path_lock_is_alone_among_builders(place: ThrowawayStore) -> None:
    lock, busy = place.path("x.lock"), place.path("busy")
    command = [sys.executable, "-I", "-S", "-c", BUILDER, lock, busy, "2"]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    store_fd = open_directory(place.store_dir.path)
    clashes = ghosts = 0
    while any(builder.poll() is None for builder in builders):
        with ExitStack() as locks, suppress(NotHeldError):
            held = hold_path(locks, store_fd, "x.lock")
            ghosts += os.fstat(held.fd).st_nlink == 0
            clashes += clash(busy)
    os.close(store_fd)
    told = [builder.communicate()[0] for builder in builders]
    assert (ghosts, clashes, told) == (0, 0, ["0\n"] * 3)


def test_the_lock_file_of_another_is_not_unlinked(place: ThrowawayStore) -> None:
    lock = output_lock(place.add_derivation("x"), "out")
    place.add_lock(lock)

    def replace_it() -> None:
        os.unlink(place.path(lock))
        place.add_lock(lock)
        place.hold(place.path(lock))

    run(place, lock, checkpoint=at("intended", replace_it))
    assert lock in names(place)
    assert os.stat(place.path(lock)).st_size == 0


def test_a_made_lock_is_removed_only_where_it_is_still_ours(place: ThrowawayStore) -> None:
    store_fd = open_directory(place.store_dir.path)
    with ExitStack() as locks:
        hold_path(locks, store_fd, "x.lock")
        os.unlink(place.path("x.lock"))
        place.add_lock("x.lock")
    os.close(store_fd)
    assert "x.lock" in names(place)
