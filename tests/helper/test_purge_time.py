# SPDX-License-Identifier: MIT
"""A purge ends in time, whatever the tree is like and whoever writes into it."""

import os
import subprocess
import sys
import time

from helper.trees import left_private, spread, taken
from storewarden.helper.purge import Purged, deadlines, purge
from storewarden.throwaway import ThrowawayStore

NAME = f"{'0' * 32}-a"
WRITER = """
import itertools, os
print("writing", flush=True)
for number in itertools.count():
    try:
        os.close(os.open(f"w{number}", os.O_CREAT))
    except OSError:
        pass
"""


def seconds_of(place: ThrowawayStore, seconds: float) -> tuple[float, Purged]:
    """How long a purge of that entry takes which has so many seconds, and what it says."""
    with taken(place, NAME) as private:
        began = time.monotonic()
        purged = purge(private, Purged(until=began + seconds))
        return time.monotonic() - began, purged


def test_it_ends_in_time_within_one_flat_directory(place: ThrowawayStore) -> None:
    spread(place.path(NAME), 1, 20_000)
    took, purged = seconds_of(place, 0.05)
    assert purged.late
    assert 0 < purged.files < 20_000
    # Of the rest, which takes most of a second, nothing is looked at.
    assert took < 0.3
    assert left_private(place)


def test_it_ends_in_time_where_somebody_goes_on_writing(place: ThrowawayStore) -> None:
    os.mkdir(place.path(NAME))
    command = [sys.executable, "-I", "-S", "-c", WRITER]
    with subprocess.Popen(command, cwd=place.path(NAME), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            took, _ = seconds_of(place, 1.0)
        finally:
            writer.kill()
    assert took < 3


def test_each_purge_of_a_run_has_an_equal_part_of_the_time_that_is_left() -> None:
    began = time.monotonic()
    assert [round(end - began) for end in deadlines(4, 60.0)] == [15, 20, 30, 60]


def test_one_that_takes_all_of_its_time_leaves_the_others_theirs() -> None:
    began = time.monotonic()
    for end in deadlines(4, 0.4):
        assert end > time.monotonic()
        time.sleep(max(0.0, end - time.monotonic()))
    assert 0.4 <= time.monotonic() - began < 2
