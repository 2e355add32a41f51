# SPDX-License-Identifier: MIT
"""Path locks among builders that come and go."""

import os
import subprocess
import sys
from contextlib import ExitStack, suppress

from helper.bench import at, names, run
from storewarden.helper.hold import NotHeldError, hold_path
from storewarden.store.entries import open_directory
from storewarden.store.paths import output_lock
from storewarden.throwaway import ThrowawayStore

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
