# SPDX-License-Identifier: MIT
"""A purge ends in time, whatever the tree is like and whoever writes into it."""

import os
import subprocess
import sys
import time
from dataclasses import replace

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


def test_it_ends_in_time_within_one_flat_directory(place: ThrowawayStore) -> None:
    spread(place.path(NAME), 1, 20_000)
    purged, late = Purged(late=True), []
    with taken(place, NAME) as private:
        while purged.late:
            before = purged.files
            # It looks at the clock before each name: one that is in time at all removes some.
            purged = purge(private, replace(purged, until=time.monotonic() + 0.05))
            late += [purged.files - before] * purged.late
            assert os.listdir(private.fd) or not purged.late
    assert any(0 < files < 20_000 for files in late), "none was late with files left"
    assert (purged.files, purged.directories, purged.failures) == (20_000, 2, 0)
    assert not left_private(place)


def test_it_ends_in_time_where_somebody_goes_on_writing(place: ThrowawayStore) -> None:
    os.mkdir(place.path(NAME))
    command = [sys.executable, "-I", "-S", "-c", WRITER]
    with subprocess.Popen(command, cwd=place.path(NAME), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            with taken(place, NAME) as private:
                purge(private, Purged(until=time.monotonic() + 1.0))
            assert writer.poll() is None
        finally:
            writer.kill()


def test_each_purge_of_a_run_has_an_equal_part_of_the_time_that_is_left() -> None:
    began = time.monotonic()
    assert [round(end - began) for end in deadlines(4, 60.0)] == [15, 20, 30, 60]


def test_one_that_takes_all_of_its_time_leaves_the_others_theirs() -> None:
    began = time.monotonic()
    ends = []
    for end in deadlines(4, 0.4):
        ends.append(end)
        time.sleep(max(0.0, end - time.monotonic()))
    assert ends == sorted(ends)
    assert time.monotonic() - began >= 0.4
