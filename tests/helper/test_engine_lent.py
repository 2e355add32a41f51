# SPDX-License-Identifier: MIT
"""Removing with locks that a parent's parent holds: as long as it does, and lives, and waits."""

import fcntl
import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from helper.bench import (
    audit_is_whole,
    live_temp_root,
    log_of,
    names,
    out_of_reach,
    picture,
    records,
    run,
)
from helper.child import (
    among_own_processes,
    as_ordinary_user,
    in_child,
    needs_root,
    put_layers,
    take_own_mounts,
)
from helper.trees import descriptors
from stand_in import ends
from storewarden.errors import StorewardenError
from storewarden.helper.audit import open_log
from storewarden.helper.engine import remove_before_build
from storewarden.helper.hold import Worker, waiting_worker
from storewarden.host import holds, parent_of
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import holding

Told = list[list[str]]
Act = Callable[[Worker], object]


def before_build(
    place: ThrowawayStore,
    derivation: StorePath,
    *held: str,
    outputs: Sequence[str] = ("out",),
    rooted: Sequence[StorePath] = (),
    at: str = "",
    act: Act = lambda _: None,
) -> Told:
    """What the engine says to a child's child of a worker with those locks and temp roots.

    `act` is done as soon as the engine reaches that step; where there is none, all is closed again.
    """

    def engine() -> Told:
        worker = waiting_worker()

        def checkpoint(reached: str) -> None:
            if reached == at:
                act(worker)

        before = descriptors()
        outcomes = remove_before_build(
            place.as_store(),
            derivation,
            outputs,
            worker,
            audit_log=log_of(place),
            checkpoint=checkpoint,
        )
        told = [[one.base_name, one.status.value, *one.reasons] for one in outcomes]
        assert at or descriptors() == before
        return told

    reading, writing = os.pipe()
    if os.fork() == 0:
        locks = [os.open(place.path(name), os.O_RDWR | os.O_CREAT, 0o600) for name in held]
        locks.append(os.open(f"{place.state_dir}/temproots/{os.getpid()}", os.O_RDWR | os.O_CREAT))
        os.fchmod(locks[-1], 0o600)  # whatever the umask, as Nix's daemon has another
        os.write(locks[-1], "".join(f"{place.path(one.base_name)}\0" for one in rooted).encode())
        for fd in locks:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _below(lambda: _below(lambda: _tell(writing, engine)), *locks)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = json.loads(file.read())
    os.wait()
    assert isinstance(told, list), told
    return told


def _below(work: Callable[[], object], *locks: int) -> None:
    """Do it in a child, and end after it. The locks are not the child's, as Nix's are not."""
    pid = os.fork()
    if pid == 0:
        for fd in locks:
            os.close(fd)
        work()
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)


def _tell(writing: int, work: Callable[[], object]) -> None:
    try:
        answer = json.dumps(work())
    except StorewardenError as cause:
        answer = json.dumps([["", "broken", str(cause)]])
    except BaseException:  # noqa: BLE001 - told to the parent
        answer = json.dumps(traceback.format_exc())
    os.write(writing, answer.encode())


def lent(derivation: StorePath) -> str:
    return output_lock(derivation, "out")


def test_what_a_lent_lock_covers_is_removed_and_the_worker_is_on_record(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    told = before_build(place, derivation, lent(derivation))
    assert told == [[scratch.base_name, "taken"], [scratch.base_name, "removed"]]
    assert scratch.base_name not in names(place)
    assert path_lock(scratch) not in names(place)
    intent, _ = records(place)
    assert intent["locks"] == sorted([lent(derivation), path_lock(scratch)])
    assert intent["requester"]["via"] == "pre-build-hook"  # type: ignore[index]
    assert audit_is_whole(place)


def test_where_nobody_lends_the_lock_it_is_taken_as_ever(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    assert before_build(place, derivation)[-1] == [scratch.base_name, "removed"]


def test_the_temp_roots_of_the_worker_itself_keep_nothing(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    told = before_build(place, derivation, lent(derivation), rooted=[derivation, scratch])
    assert told == [[scratch.base_name, "taken"], [scratch.base_name, "removed"]]


def test_the_temp_root_of_another_keeps_it(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    with live_temp_root(place, derivation):
        [outcome] = before_build(place, derivation, lent(derivation), rooted=[derivation])
    assert outcome[1] == "kept"
    assert "(process 77)" in outcome[2]
    assert scratch.base_name in names(place)


def test_a_database_that_cannot_be_read_is_told_of(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    os.rename(f"{place.state_dir}/db/schema", f"{place.state_dir}/db/away")
    [outcome] = before_build(place, derivation, lent(derivation))
    assert outcome[1] == "broken"
    assert outcome[2].startswith(f"{derivation.base_name}: ")
    assert "does not have it as valid" not in outcome[2]
    assert scratch.base_name in names(place)


def test_an_output_that_lies_nowhere_keeps_no_other(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    told = before_build(place, derivation, outputs=["bin", "out", "dev"])
    assert told == [[scratch.base_name, "taken"], [scratch.base_name, "removed"]]


def test_what_takes_long_to_purge_is_left_to_the_next_run(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    both = {scratch.base_name, place.strand(derivation, "dev").base_name}

    def take_long(_: Worker) -> None:
        time.sleep(0.3)

    *taken, _, last = before_build(
        place, derivation, outputs=["out", "dev"], at="purged", act=take_long
    )
    assert {one[0] for one in taken if one[1] == "taken"} == both
    assert last[1] == "partial"
    assert "it takes long" in last[2]
    assert {outcome.status for outcome in run(place)} == {"removed"}


def test_whoever_has_the_audit_log_is_not_waited_for_long(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    with open_log(log_of(place)):
        pass
    with holding(log_of(place)):
        [outcome] = before_build(place, derivation)
    assert outcome[1] == "broken"
    assert "at work for 0.25 s" in outcome[2]
    assert scratch.base_name in names(place)


@pytest.mark.parametrize("umask", [0o777, 0o277, 0o177, 0o000])
def test_no_umask_keeps_an_ordinary_user_from_preparing_its_build(umask: int) -> None:
    def with_umask(directory: str) -> bool:
        place = ThrowawayStore.create(directory)
        derivation = place.add_derivation("x")
        scratch = place.strand(derivation)
        before = os.umask(umask)
        told = before_build(place, derivation)
        os.umask(before)
        assert os.stat(log_of(place)).st_mode & 0o777 == 0o640 & ~(umask & 0o077)
        place.close()
        return told == [[scratch.base_name, "taken"], [scratch.base_name, "removed"]]

    assert as_ordinary_user(with_umask)


def test_a_lock_that_another_process_holds_is_not_lent(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    place.hold(place.path(lent(derivation)))
    before = picture(place.store_dir.path)
    [outcome] = before_build(place, derivation)
    assert outcome[:2] == [scratch.base_name, "kept"]
    assert "its lock is held" in outcome[2]
    assert picture(place.store_dir.path) == before
    assert not records(place)


def kill_worker(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    # Its files are gone before the kernel lets their locks go: not until then has it ended.
    assert ends(worker.pid)


@pytest.mark.parametrize("step", ["unchanged", "taken"])
def test_a_worker_that_ends_at_the_last_moment_has_it_left_or_put_back(
    step: str, place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    before = picture(place.path(scratch.base_name))
    [outcome] = before_build(place, derivation, lent(derivation), at=step, act=kill_worker)
    assert outcome[:2] == [scratch.base_name, "kept"]
    assert "a lock of it was let go or taken away at the last moment" in outcome[2]
    assert ("so it was put back" in outcome[2]) == (step == "taken")
    assert picture(place.path(scratch.base_name)) == before
    assert audit_is_whole(place)
    assert names(place) >= {scratch.base_name}


def begin_another_build(place: ThrowawayStore, derivation: StorePath, worker: Worker) -> None:
    kill_worker(worker)
    place.hold(place.path(lent(derivation)))


def test_what_the_next_build_took_over_before_the_rename_lies_in_its_place_again(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    """The same directory, with another worker's lock: nothing of it tells but the lock."""
    began = partial(begin_another_build, place, derivation)
    [outcome] = before_build(place, derivation, lent(derivation), at="taken", act=began)
    assert outcome[1] == "kept"
    assert scratch.base_name in names(place)
    assert audit_is_whole(place)


def test_a_lock_that_a_worker_holds_no_more_at_the_name_is_not_lent(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    """A collector may unlink what is held, and the next build locks another file."""

    def unlinked(_: Worker) -> None:
        os.unlink(place.path(lent(derivation)))
        place.hold(place.path(lent(derivation)))

    [outcome] = before_build(place, derivation, lent(derivation), at="unchanged", act=unlinked)
    assert outcome[1] == "kept"
    assert scratch.base_name in names(place)


def test_a_derivation_that_the_database_does_not_have_is_another_stores(
    place: ThrowawayStore,
) -> None:
    unknown = place.invent("y.drv")
    place.strand(unknown)
    [outcome] = before_build(place, unknown, lent(unknown))
    assert outcome[1] == "broken"
    assert "the database does not have it as valid" in outcome[2]


def test_where_the_daemon_cannot_be_reached_nothing_is_removed(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    out_of_reach(place)
    [outcome] = before_build(place, derivation, lent(derivation))
    assert outcome[1] == "broken"
    assert "nix-daemon cannot be reached" in outcome[2]
    assert scratch.base_name in names(place)


@needs_root
def test_in_a_store_with_layers_nothing_is_removed(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    def in_own_mounts() -> Told:
        take_own_mounts()
        put_layers(place)
        return before_build(place, derivation)

    [outcome] = in_child(in_own_mounts)
    assert outcome[1] == "broken"
    assert "is on a file system of type overlay" in outcome[2]
    assert scratch.base_name in names(place)


def test_who_does_not_wait_for_this_process_lends_nothing(place: ThrowawayStore) -> None:
    lock = place.path(place.invent("x.lock").base_name)
    with holding(lock) as other:
        assert holds(other, lock)
        assert not Worker(other, os.getppid()).holds(lock), "it is not our parent's parent"
        assert not Worker(other, other).holds(lock), "it is not even our parent"
        with open(f"{lock}.ours", "wb") as ours, subprocess.Popen(["sleep", "60"]) as child:
            fcntl.flock(ours, fcntl.LOCK_EX)
            assert holds(os.getpid(), ours.name)
            assert not Worker(os.getpid(), child.pid).holds(ours.name), (
                "its child is not our parent"
            )
            child.kill()
        assert not Worker(parent_of(os.getppid()), os.getppid()).holds(lock), "it holds nothing"


@needs_root
def test_a_parent_outside_of_this_container_lends_nothing(place: ThrowawayStore) -> None:
    lock = place.path(place.invent("x.lock").base_name)

    def lends() -> bool:
        with open(lock, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return Worker(os.getpid(), os.getppid()).holds(lock)

    assert among_own_processes(lends, proc=False) is False
