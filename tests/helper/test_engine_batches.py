# SPDX-License-Identifier: MIT
"""Several entries at once, several callers at once, and callers that go away."""

import errno
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

from helper.bench import (
    at,
    audit_is_whole,
    log_of,
    names,
    picture,
    records,
    request,
    run,
    run_requests,
)
from helper.child import kill_self, killed, traced
from helper.trees import descriptors, left_private
from storewarden.audit import Requester
from storewarden.errors import BadStorePathError, StoreUnreadableError
from storewarden.helper.engine import remove
from storewarden.protocol import RemoveRequest
from storewarden.store.entries import EntryKind, FileId
from storewarden.store.paths import StorePath
from storewarden.store.store import Fact
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding


def test_all_are_taken_before_any_is_purged(place: ThrowawayStore) -> None:
    paths = [place.strand(place.add_derivation(name)).base_name for name in "abc"]
    steps: list[str] = []
    outcomes = run(place, *paths, checkpoint=steps.append)
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        *((path, "taken") for path in paths),
        *((path, "removed") for path in paths),
    ]
    assert steps == ["proved", "intended", "unchanged", "taken"] * 3 + ["purging", "purged"] * 3
    assert not left_private(place)


def test_a_batch_may_end_in_many_ways(place: ThrowawayStore) -> None:
    dead, held, valid, gone = (
        place.strand(place.add_derivation(name)).base_name for name in ("a", "b", "c", "d")
    )
    lock = f"{place.invent('e').base_name}.lock"
    place.add_lock(lock)
    place.register(StorePath(valid))
    requests = [request(place, name) for name in (held, gone, dead, valid, lock)]
    subprocess.run(["rm", "-r", place.path(gone)], check=True)
    with holding(place.path(f"{held}.lock")):
        outcomes = run_requests(place, requests, store=alone(place))
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        (held, "kept"),
        (gone, "vanished"),
        (dead, "taken"),
        (valid, "kept"),
        (lock, "removed"),
        (dead, "removed"),
    ]
    assert names(place) & {dead, held, valid, gone, lock} == {held, valid}
    assert audit_is_whole(place)


def test_no_descriptor_and_no_lock_outlives_a_run(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    held = place.strand(place.add_derivation("held")).base_name
    before = descriptors()
    with holding(place.path(f"{held}.lock")):
        outcomes = run(place, scratch.base_name, held, store=alone(place))
        assert [outcome.status for outcome in outcomes] == ["taken", "kept", "removed"]
        assert len(descriptors() - before) <= 2, "those of the other process alone"
    assert descriptors() == before
    assert run(place, held)[-1].status == "removed"


def test_a_caller_that_stops_listening_leaves_nothing_half_done(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    requester = Requester(0, None, "test")
    outcomes = remove(
        place.as_store(),
        [request(place, scratch.base_name)],
        audit_log=log_of(place),
        requester=requester,
    )
    assert next(iter(outcomes)).status == "taken"
    outcomes.close()  # type: ignore[attr-defined]
    assert left_private(place)
    (intent,) = records(place)
    assert intent["requester"] == {"uid": 0, "pid": 0, "via": "test"}, "nobody knows its process"
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert not left_private(place)
    assert audit_is_whole(place)


def test_of_two_at_once_one_removes_it(place: ThrowawayStore, scratch: StorePath) -> None:
    asked = request(place, scratch.base_name)
    waiting, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(waiting, 1)
        late = [
            outcome.status.value for outcome in run_requests(place, [asked], store=alone(place))
        ]
        os._exit(0 if late == ["vanished"] else 1)
    os.close(waiting)
    start = at("proved", lambda: os.write(go, b"!"))
    early = run_requests(place, [asked], store=alone(place), checkpoint=start)
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    assert [outcome.status for outcome in early] == ["taken", "removed"]
    assert len(records(place, "intent")) == 1


def test_what_an_earlier_run_left_is_purged_whatever_is_asked_for_now(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    killed(lambda: run(place, scratch.base_name, checkpoint=at("purging", kill_self)))
    assert left_private(place)
    with pytest.raises(BadStorePathError):
        run_requests(place, [RemoveRequest("..", EntryKind.OUTPUT, FileId(1, 1))])
    assert not left_private(place)
    assert audit_is_whole(place)


def test_of_all_that_goes_wrong_the_first_is_told(place: ThrowawayStore) -> None:
    first, second = (place.strand(place.add_derivation(name)) for name in "ab")
    killed(lambda: run(place, first.base_name, checkpoint=at("purging", kill_self)))
    asked: list[list[str]] = []

    def ask(paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        asked.append([path.base_name for path in paths])
        raise StoreUnreadableError(f"question {len(asked)}")

    with pytest.raises(StoreUnreadableError, match=r"^question 1$"):
        run(place, second.base_name, store=replace(place.as_store(), ask_nix=ask))
    assert asked == [[second.base_name], [first.base_name]]


@pytest.mark.parametrize(("step", "on_record"), [("proved", 0), ("intended", 1)])
def test_one_that_the_system_refuses_to_look_at_leaves_the_others_their_turn(
    step: str, on_record: int, place: ThrowawayStore
) -> None:
    bad, good = (place.strand(place.add_derivation(name)).base_name for name in "ab")
    before = picture(place.path(bad))

    def fail() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    outcomes = run(place, bad, good, checkpoint=at(step, fail))
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        (bad, "failed"),
        (good, "taken"),
        (good, "removed"),
    ]
    assert picture(place.path(bad)) == before
    assert len(records(place, "intent")) == 1 + on_record
    assert [outcome.status for outcome in run(place)] == ["kept"] * on_record
    assert audit_is_whole(place)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "the store is mounted read-only here"),
        (errno.EBUSY, "something is mounted on it"),
        (errno.EXDEV, "the file system cannot move it: on an overlay, it came with the image"),
        (errno.ENOSPC, "the disk is full, not even a directory can be made in the store"),
        (
            errno.EPERM,
            "the system refuses it: a flag such as chattr +i, or on macOS App Management",
        ),
        (errno.EIO, "the disk cannot be read there; what the kernel says of it: dmesg"),
        (errno.EMFILE, os.strerror(errno.EMFILE).lower()),
        (0, os.strerror(0).lower()),
    ],
)
def test_what_the_system_refuses_is_told_with_what_can_be_done(
    number: int, advice: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    def fail() -> None:
        raise OSError(number, "as the system has it")

    (outcome,) = run(place, scratch.base_name, checkpoint=at("proved", fail))
    assert (outcome.status, outcome.reasons) == ("failed", (advice,))


def test_the_store_is_synced_between_the_last_move_and_the_first_purge(
    place: ThrowawayStore,
) -> None:
    paths = [place.strand(place.add_derivation(name)).base_name for name in "ab"]
    order = traced(lambda: run(place, *paths), "rename_exclusive", "fsync", "purge")
    moved = len(order) - order[::-1].index("rename_exclusive")
    assert "fsync" in order[moved : order.index("purge")]


def test_the_store_is_synced_before_what_an_earlier_run_moved_is_purged(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    killed(lambda: run(place, scratch.base_name, checkpoint=at("purging", kill_self)))
    order = traced(lambda: run(place), "flock", "fsync", "purge")
    before = order[: order.index("purge")]
    found = len(before) - before[::-1].index("flock")
    assert "fsync" in before[found:], "after the private directory's lock was taken"
