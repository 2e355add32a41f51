# SPDX-License-Identifier: MIT
import os
import resource
import socket
import subprocess
from collections.abc import Callable

import pytest

from helper.bench import names, picture
from helper.child import in_child, needs_root
from helper.trees import (
    descriptors,
    dig,
    left_private,
    spread,
    take_and_purge,
    taken,
    write,
)
from storewarden.helper.purge import Purged, purge
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
    purged = take_and_purge(place, NAME)
    assert (purged.failures, purged.directories, purged.files) == (0, 101, 3000)
    assert purged.bytes >= 3000 * len("content\n")
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
        os.symlink("/", f"{top}/root")
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
    os.symlink("/etc", path)


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
