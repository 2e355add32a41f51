# SPDX-License-Identifier: MIT
import fcntl
import os

import pytest

from helper.bench import held_by_another
from storewarden.helper.hold import rooted, temp_roots
from storewarden.store.paths import StorePath
from storewarden.store.store import NO, Fact, Known
from storewarden.throwaway import ThrowawayStore


def write(place: ThrowawayStore, name: str, *paths: str, end: str = "\0") -> str:
    path = f"{place.state_dir}/temproots/{name}"
    with open(path, "wb") as file:
        file.write(os.fsencode("\0".join(paths) + (end if paths else "")))
    return path


def full(place: ThrowawayStore, path: StorePath) -> str:
    return place.path(path.base_name)


def found(place: ThrowawayStore) -> dict[StorePath, list[str]]:
    return temp_roots(place.as_store())


@pytest.mark.parametrize("operation", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_the_temp_roots_of_a_live_process_count(operation: int, place: ThrowawayStore) -> None:
    a, b = place.invent("a"), place.invent("b.drv")
    with held_by_another(write(place, "123", full(place, a), full(place, b)), operation):
        assert found(place) == {a: ["123"], b: ["123"]}


def test_the_temp_roots_of_a_dead_process_do_not_count_and_are_left(place: ThrowawayStore) -> None:
    path = write(place, "123", full(place, place.invent("a")))
    with open(path, "rb") as file:
        before = file.read()
    assert found(place) == {}
    with open(path, "rb") as file:
        assert file.read() == before


def test_a_live_process_beside_a_dead_one_counts(place: ThrowawayStore) -> None:
    a, b = place.invent("a"), place.invent("b")
    write(place, "1", full(place, a))
    with held_by_another(write(place, "name-that-is-no-pid", full(place, b))):
        assert found(place) == {b: ["name-that-is-no-pid"]}


def test_a_temp_root_whose_end_is_not_written_yet_counts(place: ThrowawayStore) -> None:
    a = place.invent("a")
    with held_by_another(write(place, "1", full(place, a), end="")):
        assert found(place) == {a: ["1"]}


def test_odd_content_hides_no_temp_root(place: ThrowawayStore) -> None:
    a = place.invent("a")
    odd = ["", "\udcff\udcfe", "/elsewhere/x", place.store_dir.path, "\n"]
    with held_by_another(write(place, "1", *odd, full(place, a), *odd)):
        assert found(place) == {a: ["1"]}


def test_a_file_with_a_dot_in_front_is_not_in_use_yet(place: ThrowawayStore) -> None:
    with held_by_another(write(place, ".1", full(place, place.invent("a")))):
        assert found(place) == {}


def test_no_temp_roots_directory_means_no_temp_root(place: ThrowawayStore) -> None:
    os.rmdir(f"{place.state_dir}/temproots")
    assert found(place) == {}


def test_what_is_no_directory_is_unknown(place: ThrowawayStore) -> None:
    directory = f"{place.state_dir}/temproots"
    os.rmdir(directory)
    with open(directory, "w", encoding="ascii"):
        pass
    with pytest.raises(OSError, match="Errno"):  # which is unknown to who asks
        found(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every directory")
def test_a_directory_that_cannot_be_read_is_unknown(place: ThrowawayStore) -> None:
    directory = f"{place.state_dir}/temproots"
    write(place, "1", full(place, place.invent("a")))
    for mode in (0o000, 0o400, 0o100):
        os.chmod(directory, mode)
        with pytest.raises(OSError, match="Errno"):  # which is unknown to who asks
            found(place)
    os.chmod(directory, 0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_that_cannot_be_read_is_unknown(place: ThrowawayStore) -> None:
    os.chmod(write(place, "1", full(place, place.invent("a"))), 0o000)
    with pytest.raises(OSError, match="Errno"):  # which is unknown to who asks
        found(place)


def test_a_symbolic_link_among_the_temp_roots_is_unknown(place: ThrowawayStore) -> None:
    target = write(place, ".hidden", full(place, place.invent("a")))
    os.symlink(target, f"{place.state_dir}/temproots/1")
    with pytest.raises(OSError, match="Errno"):  # which is unknown to who asks
        found(place)


def test_a_held_directory_among_the_temp_roots_is_unknown(place: ThrowawayStore) -> None:
    path = f"{place.state_dir}/temproots/1"
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(OSError, match="Errno"):  # which is unknown to who asks
            found(place)
    finally:
        os.close(fd)


def test_a_fifo_among_the_temp_roots_does_not_stop_us(place: ThrowawayStore) -> None:
    os.mkfifo(f"{place.state_dir}/temproots/1")
    assert found(place) == {}


def test_paths_are_compared_by_hash_part_as_the_collector_does() -> None:
    roots = {StorePath(f"{'0' * 32}-a.drv"): ["7"]}
    same, other = StorePath(f"{'0' * 32}-b"), StorePath(f"{'1' * 32}-a.drv")
    assert rooted(roots, [same]) == rooted(roots, [other, same]) == Fact(Known.YES, "process 7")
    assert rooted(roots, [other]) == rooted(roots, []) == rooted({}, [same]) == NO
