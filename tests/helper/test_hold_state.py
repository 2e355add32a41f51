# SPDX-License-Identifier: MIT

import fcntl
import os
import shutil
import subprocess
from contextlib import ExitStack
from tempfile import TemporaryDirectory

import pytest

from helper.bench import can_be_locked
from helper.child import as_ordinary_user, beside, in_child, mount, needs_root, take_own_mounts
from storewarden import host
from storewarden.helper.hold import hold_collector, hold_user, rooted, settle, temp_roots
from storewarden.store.entries import BuildUsers
from storewarden.store.paths import StorePath
from storewarden.store.store import NO, Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

USERS = BuildUsers(
    30000,
    frozenset({30001, host.FIRST_ALLOCATED + 7}),
    host.FIRST_ALLOCATED,
    host.ALLOCATED,
    host.PER_SLOT,
)


def test_a_collector_at_work_is_seen(place: ThrowawayStore, locks: ExitStack) -> None:
    with holding(f"{place.state_dir}/gc.lock"):
        assert settle(hold_collector, locks, place.state_dir) == Fact(Known.YES, "gc.lock is held")


def test_builders_that_hold_the_collectors_lock_shared_do_not_matter(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    with holding(f"{place.state_dir}/gc.lock", fcntl.LOCK_SH):
        assert settle(hold_collector, locks, place.state_dir) == NO


def test_a_collector_waits_while_builders_go_on(place: ThrowawayStore, locks: ExitStack) -> None:
    gc_lock = f"{place.state_dir}/gc.lock"
    assert settle(hold_collector, locks, place.state_dir) == NO
    assert os.stat(gc_lock).st_mode & 0o7777 == 0o600
    assert not can_be_locked(gc_lock)
    assert can_be_locked(gc_lock, fcntl.LOCK_SH)
    locks.close()
    assert can_be_locked(gc_lock)
    assert os.path.exists(gc_lock)


def test_a_collectors_lock_that_may_not_be_written_still_counts(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    gc_lock = f"{place.state_dir}/gc.lock"
    with holding(gc_lock):
        os.chmod(gc_lock, 0o400)
        assert settle(hold_collector, locks, place.state_dir).known is Known.YES
    assert settle(hold_collector, locks, place.state_dir) == NO
    assert not can_be_locked(gc_lock)


def held_by_reading(state_dir: str) -> list[str]:
    """What is known of a collector's lock that can only be read: held by another, and then free."""
    gc_lock = f"{state_dir}/gc.lock"
    with pytest.raises(OSError, match="Errno"):
        os.open(gc_lock, os.O_RDWR)
    with open(gc_lock, "rb") as file, ExitStack() as locks:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = [settle(hold_collector, locks, state_dir).known.value]
        fcntl.flock(file, fcntl.LOCK_UN)
        known.append(settle(hold_collector, locks, state_dir).known.value)
        assert not can_be_locked(gc_lock)
    assert can_be_locked(gc_lock)
    return known


def test_a_lock_that_this_user_may_not_write_is_held_by_reading() -> None:
    def unwritable(directory: str) -> list[str]:
        os.close(os.open(f"{directory}/gc.lock", os.O_CREAT, 0o400))
        return held_by_reading(directory)

    assert as_ordinary_user(unwritable) == ["yes", "no"]


@needs_root
def test_a_lock_on_a_read_only_file_system_is_held_by_reading(place: ThrowawayStore) -> None:
    def read_only() -> list[str]:
        take_own_mounts()
        mount("--bind", place.state_dir, place.state_dir)
        mount("-o", "remount,bind,ro", place.state_dir)
        return held_by_reading(place.state_dir)

    with open(f"{place.state_dir}/gc.lock", "wb"):
        pass
    assert in_child(read_only) == ["yes", "no"]


@needs_root
def test_a_lock_that_is_immutable_is_held_by_reading(place: ThrowawayStore) -> None:
    gc_lock = f"{place.state_dir}/gc.lock"
    with open(gc_lock, "wb"):
        pass
    if not shutil.which("chattr"):
        pytest.skip("this system has no such flag")
    if subprocess.run(["chattr", "+i", gc_lock], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no such flag")
    try:
        assert held_by_reading(place.state_dir) == ["yes", "no"]
    finally:
        subprocess.run(["chattr", "-i", gc_lock], check=True)


def test_without_a_place_for_the_collectors_lock_it_is_unknown(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    fact = settle(hold_collector, locks, f"{place.state_dir}/nowhere")
    assert fact == Fact(Known.UNKNOWN, "gc.lock: no such file or directory")


def test_a_directory_as_the_collectors_lock_is_unknown(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    os.mkdir(f"{place.state_dir}/gc.lock")
    fact = settle(hold_collector, locks, place.state_dir)
    assert fact == Fact(Known.UNKNOWN, "gc.lock: is a directory")


def test_a_symbolic_link_as_the_collectors_lock_is_unknown(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    victim = f"{place.state_dir}/victim"
    os.symlink(victim, f"{place.state_dir}/gc.lock")
    assert settle(hold_collector, locks, place.state_dir).known is Known.UNKNOWN
    assert not os.path.lexists(victim)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        (30001, "userpool/30001"),
        (host.FIRST_ALLOCATED, "userpool2/slot-0"),
        (host.FIRST_ALLOCATED + 7, f"userpool/{host.FIRST_ALLOCATED + 7}"),
        (host.FIRST_ALLOCATED + host.PER_SLOT - 1, "userpool2/slot-0"),
        (host.FIRST_ALLOCATED + host.PER_SLOT, "userpool2/slot-1"),
        (
            host.FIRST_ALLOCATED + host.ALLOCATED - 1,
            f"userpool2/slot-{host.ALLOCATED // host.PER_SLOT - 1}",
        ),
    ],
)
def test_a_build_users_lock_is_the_one_that_nix_takes(
    uid: int, name: str, place: ThrowawayStore, locks: ExitStack
) -> None:
    path = f"{place.state_dir}/{name}"
    with holding(path):
        assert settle(hold_user, locks, place.state_dir, uid, USERS) == Fact(
            Known.YES, f"{name} is held"
        )
    assert settle(hold_user, locks, place.state_dir, uid, USERS) == NO
    assert not can_be_locked(path, fcntl.LOCK_SH)
    locks.close()
    assert can_be_locked(path)


@pytest.mark.parametrize(
    "uid", [30002, host.FIRST_ALLOCATED - 1, host.FIRST_ALLOCATED + host.ALLOCATED]
)
def test_a_user_who_builds_no_more_has_a_lock_unless_nix_may_have_allocated_it(
    uid: int, place: ThrowawayStore, locks: ExitStack
) -> None:
    said = settle(hold_user, locks, place.state_dir, uid, USERS)
    assert said == Fact(
        Known.UNKNOWN, f"uid {uid} may be one that Nix allocates, by another start-id"
    )
    os.rmdir(f"{place.state_dir}/userpool2")
    assert settle(hold_user, locks, place.state_dir, uid, USERS) == NO
    assert not can_be_locked(f"{place.state_dir}/userpool/{uid}")


def test_where_allocated_users_cannot_be_looked_for_a_stranger_is_unknown(
    locks: ExitStack,
) -> None:
    with TemporaryDirectory() as state_dir:
        os.mkdir(f"{state_dir}/userpool")
        with open(f"{state_dir}/userpool/30002", "wb"):
            pass
        os.chmod(state_dir, 0o311)  # noqa: S103 - the point: what is in it opens, but is not listed
        me = os.geteuid()
        try:
            os.seteuid(me or 65534)  # root lists every directory
            with pytest.raises(PermissionError):
                os.listdir(state_dir)
            with open(f"{state_dir}/userpool/30002", "rb"):
                fact = settle(hold_user, locks, state_dir, 30002, USERS)
        finally:
            os.seteuid(me)
            os.chmod(state_dir, 0o700)
        assert fact.known is Known.UNKNOWN
        assert "permission denied" in fact.detail


def test_the_lock_of_another_build_user_does_not_matter(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    with (
        holding(f"{place.state_dir}/userpool/30002"),
        holding(f"{place.state_dir}/userpool2/slot-1"),
    ):
        assert settle(hold_user, locks, place.state_dir, 30001, USERS) == NO
        assert settle(hold_user, locks, place.state_dir, host.FIRST_ALLOCATED, USERS) == NO


@pytest.mark.parametrize("uid", [30001, host.FIRST_ALLOCATED])
def test_a_missing_pool_of_build_users_is_made_as_nix_makes_it(
    uid: int, place: ThrowawayStore, locks: ExitStack
) -> None:
    for pool in ("userpool", "userpool2"):
        os.rmdir(f"{place.state_dir}/{pool}")
    before = os.umask(0o077)
    try:
        assert settle(hold_user, locks, place.state_dir, uid, USERS).known is Known.NO
    finally:
        os.umask(before)
    (made,) = set(os.listdir(place.state_dir)) & {"userpool", "userpool2"}
    assert os.stat(f"{place.state_dir}/{made}").st_mode & 0o7777 == 0o755


def test_a_pool_of_build_users_that_nix_makes_first_is_as_good(
    place: ThrowawayStore, locks: ExitStack
) -> None:
    pool = f"{place.state_dir}/userpool"
    os.rmdir(pool)
    with beside([lambda: os.mkdir(pool)], "mkdir", before=True):
        assert settle(hold_user, locks, place.state_dir, 30001, USERS) == NO
    assert not can_be_locked(f"{pool}/30001")


@pytest.mark.parametrize("uid", [30001, 872415232])
def test_a_pool_of_build_users_that_cannot_be_made_is_unknown(
    uid: int, place: ThrowawayStore, locks: ExitStack
) -> None:
    fact = settle(hold_user, locks, f"{place.state_dir}/gone", uid, USERS)
    assert fact.known is Known.UNKNOWN
    assert "no such file" in fact.detail


def test_an_error_that_names_no_file_is_unknown_all_the_same() -> None:
    def ask() -> Fact:
        os.fstat(-1)
        return NO

    assert settle(ask) == Fact(Known.UNKNOWN, "bad file descriptor")


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
    with holding(write(place, "123", full(place, a), full(place, b)), operation):
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
    with holding(write(place, "name-that-is-no-pid", full(place, b))):
        assert found(place) == {b: ["name-that-is-no-pid"]}


def test_a_temp_root_whose_end_is_not_written_yet_counts(place: ThrowawayStore) -> None:
    a = place.invent("a")
    with holding(write(place, "1", full(place, a), end="")):
        assert found(place) == {a: ["1"]}


def test_odd_content_hides_no_temp_root(place: ThrowawayStore) -> None:
    a = place.invent("a")
    odd = ["", "\udcff\udcfe", "/elsewhere/x", place.store_dir.path, "\n"]
    with holding(write(place, "1", *odd, full(place, a), *odd)):
        assert found(place) == {a: ["1"]}


def test_a_file_with_a_dot_in_front_is_not_in_use_yet(place: ThrowawayStore) -> None:
    with holding(write(place, ".1", full(place, place.invent("a")))):
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
    roots = {StorePath(f"{'0' * 32}-a.drv"): ["6", "7"]}
    same, other = StorePath(f"{'0' * 32}-b"), StorePath(f"{'1' * 32}-a.drv")
    assert rooted(roots, [same]) == rooted(roots, [other, same]) == Fact(Known.YES, "process 7")
    assert rooted({other: ["5"], **roots}, [same]) == Fact(Known.YES, "process 7")
    assert rooted({one: [] for one in roots}, [same]) == NO
    assert rooted(roots, [other]) == rooted(roots, []) == rooted({}, [same]) == NO
