# SPDX-License-Identifier: MIT

import itertools
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from disks import BLOCK, debugfs, needs_a_disk, of_a_changed_disk
from helper.bench import audit_is_whole, names, picture, run
from helper.child import beside, descriptors_left, in_child, needs_root
from helper.trees import (
    descriptors,
    dig,
    left_private,
    spread,
    take_and_purge,
    taken,
    write,
)
from storewarden.helper.purge import Purged, deadlines, purge
from storewarden.throwaway import ThrowawayStore

NAME = f"{'0' * 32}-a"
DEEP = 20_000


def test_a_tree_deeper_than_any_path_goes(place: ThrowawayStore) -> None:
    before = names(place)
    dig(place.path(NAME), DEEP)
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories, purged.files) == (0, DEEP + 1, 0)
    assert names(place) == before


def test_a_wide_tree_goes_and_is_counted(place: ThrowawayStore) -> None:
    before = names(place)
    spread(place.path(NAME), 100, 30)
    large = os.urandom(1 << 20)  # more than all directories take
    with open(f"{place.path(NAME)}/large", "wb") as file:
        file.write(large)
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories, purged.files) == (0, 101, 3001)
    assert purged.bytes >= len(large)
    assert names(place) == before


def test_many_files_in_one_directory_go(place: ThrowawayStore) -> None:
    spread(place.path(NAME), 1, 5000)
    assert take_and_purge(place, NAME).files == 5000
    assert not left_private(place)


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o555, 0o1777])
def test_no_mode_of_a_directory_saves_it(mode: int, place: ThrowawayStore) -> None:
    before = names(place)
    spread(place.path(NAME), 3, 3)
    for top, _, files in os.walk(place.path(NAME), topdown=False):
        for file in files:
            os.lchown(f"{top}/{file}", place.builder, place.builder)
        os.chown(top, place.builder + 1, place.builder)
        os.chmod(top, mode)
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories, purged.files) == (0, 4, 9)
    assert names(place) == before


def test_links_to_outside_are_removed_and_never_followed(place: ThrowawayStore) -> None:
    outside = f"{place.state_dir}/outside"
    spread(outside, 2, 2)
    os.makedirs(f"{place.path(NAME)}/d")
    for top in (place.path(NAME), f"{place.path(NAME)}/d"):
        os.symlink(outside, f"{top}/directory")
        os.symlink(f"{outside}/0/0", f"{top}/file")
        os.symlink(place.state_dir, f"{top}/state")
        os.symlink("..", f"{top}/above")
        os.symlink("nowhere", f"{top}/broken")
    before = picture(place.state_dir)
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories, purged.files) == (0, 2, 10)
    assert picture(place.state_dir) == before
    assert not left_private(place)


def test_fifos_and_sockets_go_without_being_opened(place: ThrowawayStore) -> None:
    os.makedirs(f"{place.path(NAME)}/d")
    os.mkfifo(f"{place.path(NAME)}/fifo", 0o666)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place.state_dir}/s")
    os.rename(f"{place.state_dir}/s", f"{place.path(NAME)}/d/socket")
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.files) == (0, 2)
    assert not left_private(place)


def test_no_name_saves_what_bears_it(place: ThrowawayStore) -> None:
    odd = [b"bad\xff\n name", b" ", b"-rf", b"*", b"\x1b[31m", b"x" * 255, b"tmp-storewarden-1-0"]
    for name in odd:
        os.makedirs(os.path.join(os.fsencode(place.path(NAME)), name, b"deep" + name[:200]))
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories) == (0, 1 + 2 * len(odd))
    assert not left_private(place)


def test_what_still_has_the_name_of_a_store_path_is_whole(place: ThrowawayStore) -> None:
    """Only that is ever put back, so a tree loses its name before anything in it is removed."""
    os.makedirs(f"{place.path(NAME)}/deep/deeper")
    spread(f"{place.path(NAME)}/wide", 2, 2)
    with taken(place, NAME) as private:
        inside = place.path(f"{private.name}/{NAME}")
        whole, seen = picture(inside), list[object]()
        looking = itertools.repeat(lambda: seen.append(picture(inside)))
        with beside(looking, "unlink", "rmdir", "rename"):
            assert purge(private, Purged()).failures == 0
    assert whole
    assert len(seen) > len(whole)
    assert all(one in (whole, {}) for one in seen)


def test_a_hard_link_elsewhere_keeps_mode_times_and_content(place: ThrowawayStore) -> None:
    shared = f"{place.store_dir.path}/.links/shared"
    write(shared)
    os.utime(shared, (1, 1))
    os.chmod(shared, 0o444)
    os.makedirs(f"{place.path(NAME)}/d")
    os.link(shared, f"{place.path(NAME)}/d/file")
    own = 512 * sum(os.stat(place.path(path)).st_blocks for path in (NAME, f"{NAME}/d"))
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.files, purged.bytes) == (0, 1, own), "nothing else is freed"
    found = os.stat(shared)
    assert (found.st_mode & 0o7777, found.st_nlink, found.st_mtime) == (0o444, 1, 1)
    with open(shared, encoding="utf-8") as file:
        assert file.read() == "content\n"


def _make_file(path: str) -> None:
    write(path)


def _make_link(path: str) -> None:
    os.symlink(os.path.dirname(os.path.dirname(path)), path)


@pytest.mark.parametrize("make", [_make_file, _make_link, os.mkfifo, os.mkdir])
def test_an_entry_need_not_be_a_directory(
    make: Callable[[str], None], place: ThrowawayStore
) -> None:
    make(place.path(NAME))
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.files + purged.directories) == (0, 1)
    assert not os.path.lexists(place.path(NAME))
    assert not left_private(place)


def test_another_who_removes_it_too_is_no_failure(place: ThrowawayStore) -> None:
    spread(place.path(NAME), 200, 20)
    with taken(place, NAME) as private:
        inside = place.path(f"{private.name}/{NAME}")
        with subprocess.Popen(["rm", "-rf", inside], stderr=subprocess.DEVNULL):
            assert purge(private, Purged()).failures == 0
        assert os.listdir(private.fd) == []


@pytest.mark.parametrize("function", ["open", "scandir", "stat", "rename", "unlink", "rmdir"])
def test_another_who_removes_all_of_it_is_no_failure_at_any_moment(
    function: str, place: ThrowawayStore
) -> None:
    for number in itertools.count():
        spread(f"{place.path(NAME)}/deep", 2, 2)
        with taken(place, NAME) as private:
            inside = place.path(private.name)

            def remove_all(inside: str = inside) -> None:
                for name in os.listdir(inside):
                    shutil.rmtree(f"{inside}/{name}")

            acts = iter([*([lambda: None] * number), remove_all])
            with beside(acts, function, before=True):
                purged = purge(private, Purged())
            assert (purged.failures, os.listdir(private.fd)) == (0, []), purged.reason
        assert not left_private(place)
        if next(acts, None) is not None:
            break  # it is not called so often
    assert number > 1


def test_no_descriptor_leaks(place: ThrowawayStore) -> None:
    before = descriptors()
    spread(place.path(NAME), 20, 2)
    take_and_purge(place, NAME)
    with pytest.raises(FileNotFoundError), taken(place, NAME):
        pytest.fail("nothing was there to be taken")
    assert descriptors() == before
    assert not left_private(place)


def test_a_few_descriptors_are_enough_for_any_tree(place: ThrowawayStore) -> None:
    dig(place.path(NAME), 2000)
    spread(f"{place.path(NAME)}/wide", 300, 3)

    def limited() -> int:
        # Those that the test runner has open count as well.
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        return take_and_purge(place, NAME).failures

    assert in_child(limited) == 0
    assert not left_private(place)


@pytest.mark.parametrize("count", range(4))
def test_where_descriptors_run_out_that_is_told_and_what_is_left_goes_later(
    count: int, place: ThrowawayStore
) -> None:
    spread(place.path(NAME), 2, 2)
    with taken(place, NAME) as private:
        with descriptors_left(count):
            purged = purge(private, Purged())
        assert (purged.failures, purged.files) == (1, 0)
        assert "too many open files" in purged.reason
        assert (purge(private, purged).failures, purged.files) == (0, 4)
    assert not left_private(place)


# A file system of which a directory cannot be read any more, as after a power cut.


def strand(place: ThrowawayStore) -> str:
    bad = place.strand(place.add_derivation("bad")).base_name
    spread(place.path(bad), 1, 3000)
    spread(f"{place.path(bad)}/more", 20, 5)
    return bad


def spoil(image: Path, bad: str) -> None:
    """Overwrite a block in the middle of a directory."""
    block = int(debugfs(image, f"blocks /nix/store/{bad}/0").split()[3])
    with image.open("r+b") as disk:
        disk.seek(block * BLOCK)
        disk.write(os.urandom(BLOCK))


def remove_it_and_others(place: ThrowawayStore, bad: str) -> list[list[str]]:
    good = [place.strand(place.add_derivation(name)).base_name for name in ("x", "y")]
    told = [[outcome.status.value for outcome in run(place, name)] for name in (bad, *good)]
    assert names(place).isdisjoint({bad, *good})
    (private,) = left_private(place)
    assert len(os.listdir(place.path(private))) == 1, "more is left than what cannot be read"
    assert audit_is_whole(place)
    return told


@needs_a_disk
def test_a_directory_that_cannot_be_read_stops_no_other_removal(tmp_path: Path) -> None:
    assert of_a_changed_disk(tmp_path, strand, spoil, remove_it_and_others) == [
        ["taken", "partial"],
        ["taken", "removed", "partial"],
        ["taken", "removed", "partial"],
    ]


# A purge ends in time, whatever the tree is like and whoever writes into it.


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
    spread(place.path(NAME), 1, 2_000)
    purged, calls = Purged(), list[str]()

    def note(_frame: FrameType, event: str, called: object) -> None:
        if event == "c_return":
            calls.append(str(getattr(called, "__name__", "")))
            if calls[-1] == "unlink" and purged.files == 99:
                purged.until = 0.0  # its time is over now

    with taken(place, NAME) as private:
        sys.setprofile(note)
        try:
            purge(private, purged)
        finally:
            sys.setprofile(None)
    assert (purged.late, purged.files) == (True, 100)
    last = len(calls) - calls[::-1].index("unlink")
    assert not {"stat", "lstat"} & {*calls[last:]}, "of the rest nothing is looked at"
    assert left_private(place)


def test_it_ends_in_time_where_somebody_goes_on_writing(place: ThrowawayStore) -> None:
    os.mkdir(place.path(NAME))
    command = [sys.executable, "-I", "-S", "-c", WRITER]
    with subprocess.Popen(command, cwd=place.path(NAME), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        try:
            with taken(place, NAME) as private:
                began = time.monotonic()
                purge(private, Purged(until=began + 1.0))
                took = time.monotonic() - began
            assert writer.poll() is None, "it was waited for to the end"
        finally:
            writer.kill()
    assert took < 30


def test_each_purge_of_a_run_has_an_equal_part_of_the_time_that_is_left() -> None:
    began = time.monotonic()
    ends = list(deadlines(4, 60.0))
    passed = time.monotonic() - began
    for end, part in zip(ends, (15, 20, 30, 60), strict=True):
        assert 0 <= end - began - part <= passed


def test_one_that_takes_all_of_its_time_leaves_the_others_theirs() -> None:
    began, all_of_it = time.monotonic(), 0.4
    ends, last = deadlines(4, all_of_it), 0.0
    for _ in range(4):
        asked = time.monotonic()
        end = next(ends)
        answered = time.monotonic()
        last = last or answered + all_of_it
        assert end > asked or asked >= began + all_of_it
        assert end <= max(last, answered)
        time.sleep(max(0.0, end - time.monotonic()))
    assert time.monotonic() - began >= all_of_it
