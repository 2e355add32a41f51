# SPDX-License-Identifier: MIT
"""Removing with locks that a parent's parent holds: as long as it does, and lives, and waits."""

import fcntl
import json
import os
import signal
import traceback
from collections.abc import Callable
from functools import partial

import pytest

from helper.bench import audit_is_whole, log_of, names, picture, records
from helper.child import among_own_processes, needs_root
from stand_in import ends
from storewarden.errors import StoreUnreadableError
from storewarden.helper.engine import remove_before_build
from storewarden.helper.hold import Worker, waiting_worker
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore

Told = list[list[str]]
Act = Callable[[Worker], object]


def before_build(
    place: ThrowawayStore,
    derivation: StorePath,
    *held: str,
    at: str = "",
    act: Act = lambda _: None,
) -> Told:
    """What the engine says to a child's child of a worker that holds those locks.

    `act` is done as soon as the engine reaches that step.
    """

    def engine() -> Told:
        worker = waiting_worker()

        def checkpoint(reached: str) -> None:
            if reached == at:
                act(worker)

        outcomes = remove_before_build(
            place.as_store(),
            derivation,
            ["out"],
            worker,
            audit_log=log_of(place),
            checkpoint=checkpoint,
        )
        return [[one.base_name, one.status.value, *one.reasons] for one in outcomes]

    reading, writing = os.pipe()
    if os.fork() == 0:
        locks = [os.open(place.path(name), os.O_RDWR | os.O_CREAT, 0o600) for name in held]
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
    except StoreUnreadableError as cause:
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


@needs_root
def test_a_parent_outside_of_this_container_lends_nothing(place: ThrowawayStore) -> None:
    lock = place.path(place.invent("x.lock").base_name)

    def lends() -> bool:
        with open(lock, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return Worker(os.getpid(), os.getppid()).holds(lock)

    assert among_own_processes(lends, proc=False) is False
