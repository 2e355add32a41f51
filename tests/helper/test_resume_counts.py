# SPDX-License-Identifier: MIT
"""What is on record of a removal that took several runs, and in which order they do their work."""

import os

import pytest

from helper.bench import at, audit_is_whole, log_of, names, records, run
from helper.child import (
    as_ordinary_user,
    in_child,
    kill_self,
    killed,
    mount,
    needs_root,
    take_own_mounts,
)
from helper.trees import left_private, spread, write
from storewarden.audit import Intent, Other
from storewarden.audit_reading import verify
from storewarden.errors import StorewardenError
from storewarden.helper.audit import ROTATE_AT, open_log
from storewarden.helper.purge import Purged, old_private
from storewarden.helper.resume import Leftover, finish, purged_outcome
from storewarden.protocol import Status
from storewarden.store.entries import PRIVATE_PREFIX
from storewarden.throwaway import ThrowawayStore
from sweeps import alone

UMASKS = (0o777, 0o700, 0o277, 0o177, 0o000)


def strand(place: ThrowawayStore, name: str) -> str:
    return place.strand(place.add_derivation(name)).base_name


def run_beside_a_mount(place: ThrowawayStore, name: str) -> list[str]:
    """Remove an entry in which something is mounted that the proof did not see."""

    def work() -> list[str]:
        take_own_mounts()
        inside = f"{place.path(name)}/mounted"
        act = at("intended", lambda: mount("-t", "tmpfs", "none", inside))
        return [outcome.status.value for outcome in run(place, name, checkpoint=act)]

    told: list[str] = in_child(work)
    return told


@needs_root
@pytest.mark.parametrize("rotated", [False, True])
def test_the_result_counts_what_all_runs_have_removed(
    *, rotated: bool, place: ThrowawayStore
) -> None:
    name = strand(place, "x")
    spread(f"{place.path(name)}/more", 3, 10)
    os.mkdir(f"{place.path(name)}/mounted")
    assert run_beside_a_mount(place, name) == ["taken", "partial"]
    (first,) = records(place, "result")
    (private,) = left_private(place)
    for top in os.listdir(place.path(private)):
        write(f"{place.path(private)}/{top}/late")
    if rotated:
        with open_log(log_of(place)) as log:
            log.append(Other("note", {"text": "x" * ROTATE_AT}))
    (outcome,) = run(place)
    *_, last = records(place, "result")
    assert last["op"] == first["op"]
    counted = (last["files"], last["directories"], last["bytes"])
    assert counted == (outcome.files, outcome.directories, outcome.bytes)
    assert (last["status"], last["resumed"]) == ("removed", 1)
    before = [int(str(first[key])) for key in ("files", "directories", "bytes")]
    assert outcome.files >= before[0] + 1
    assert outcome.directories > before[1] > 0
    assert outcome.bytes > before[2] > 0
    assert (verify(log_of(place)).problem, verify(log_of(place)).open_intents) == ("", 0)


@needs_root
def test_a_run_that_gets_no_further_says_nothing_anew(place: ThrowawayStore) -> None:
    name = strand(place, "x")
    os.mkdir(f"{place.path(name)}/mounted")

    def again_and_again() -> list[list[str]]:
        take_own_mounts()
        act = at("intended", lambda: mount("-t", "tmpfs", "none", f"{place.path(name)}/mounted"))
        told = [run(place, name, checkpoint=act), run(place), run(place)]
        return [[outcome.status.value for outcome in outcomes] for outcomes in told]

    assert in_child(again_and_again) == [["taken", "partial"], ["partial"], ["partial"]]
    assert len(records(place, "result")) == 1
    assert [outcome.status for outcome in run(place)] == ["removed"]


@needs_root
def test_each_run_that_gets_further_says_so_and_the_first_whatever_it_does(
    place: ThrowawayStore,
) -> None:
    name = strand(place, "x")
    for one in ("bin/tool", "log", "link"):
        os.unlink(f"{place.path(name)}/{one}")
    os.rmdir(f"{place.path(name)}/bin")
    os.mkdir(f"{place.path(name)}/mounted")
    killed(lambda: run(place, name, checkpoint=at("taken", kill_self)))
    (private,) = left_private(place)

    def now_and_then() -> list[int]:
        take_own_mounts()
        mount("-t", "tmpfs", "none", f"{place.path(private)}/{name}/mounted")
        told = []
        for late in ((), ("late",), ()):
            (top,) = os.listdir(place.path(private))
            for file in late:
                write(f"{place.path(private)}/{top}/{file}")
            (outcome,) = run(place)
            assert outcome.status == "partial"
            told.append(len(records(place, "result", "resumed")))
        return told

    assert in_child(now_and_then) == [1, 2, 2]
    assert [(one["status"], one["files"]) for one in records(place, "result")] == [
        ("partial", 0),
        ("partial", 1),
    ]


def test_of_many_that_were_left_so_many_are_purged_that_their_descriptors_do_no_harm(
    place: ThrowawayStore,
) -> None:
    for number in range(64 + 3):
        path = place.path(f"{PRIVATE_PREFIX}{number}-0")
        os.mkdir(path, 0o700)
        write(f"{path}/0123456789abcdef-0")
    assert [outcome.status for outcome in run(place)] == ["removed"] * 64
    assert [outcome.status for outcome in run(place)] == ["removed"] * 3
    assert not left_private(place)


def test_a_leftover_is_purged_until_its_time_is_over_and_no_longer(
    place: ThrowawayStore, store_fd: int
) -> None:
    name = f"{PRIVATE_PREFIX}1-0"
    os.mkdir(place.path(name), 0o700)
    write(f"{place.path(name)}/0123456789abcdef-0")
    with open_log(log_of(place)) as log, old_private(store_fd, name) as private:
        assert private is not None
        left = Leftover(private, Intent(name=name))
        assert finish(log, left, 0.0).status == "partial"
        assert finish(log, left, float("inf")).status == "removed"


@pytest.mark.parametrize(
    ("purged", "status", "reasons"),
    [
        (Purged(files=3), Status.REMOVED, ()),
        (Purged(files=3, late=True), Status.PARTIAL, ("it takes long, the next run goes on",)),
        (Purged(files=3, failures=2, reason="busy"), Status.PARTIAL, ("2 left: busy",)),
    ],
)
def test_a_purge_is_told_of_by_what_it_left_and_why(
    purged: Purged, status: Status, reasons: tuple[str, ...]
) -> None:
    outcome = purged_outcome("x", purged)
    assert (outcome.base_name, outcome.status, outcome.files) == ("x", status, 3)
    for seen, begins in zip(outcome.reasons, reasons, strict=True):
        assert seen.startswith(begins)


def test_what_is_asked_for_is_taken_before_what_was_left_is_purged(place: ThrowawayStore) -> None:
    left, new = strand(place, "left"), strand(place, "new")
    killed(lambda: run(place, left, checkpoint=at("taken", kill_self)))
    assert [(outcome.base_name, outcome.status) for outcome in run(place, new)] == [
        (new, "taken"),
        (new, "removed"),
        (left, "removed"),
    ]
    assert not left_private(place)
    assert audit_is_whole(place)


def test_an_intent_that_came_to_nothing_is_told_from_the_one_that_follows_it(
    place: ThrowawayStore,
) -> None:
    name = strand(place, "x")
    killed(lambda: run(place, name, checkpoint=at("intended", kill_self)))
    assert [outcome.status for outcome in run(place, name)] == ["kept", "taken", "removed"]
    first, second = records(place, "intent")
    assert [(result["op"], result["status"]) for result in records(place, "result")] == [
        (first["seq"], "kept"),
        (second["seq"], "removed"),
    ]


def test_a_broken_world_keeps_nothing_that_was_left(place: ThrowawayStore) -> None:
    left, new = strand(place, "left"), strand(place, "new")
    killed(lambda: run(place, left, checkpoint=at("purging", kill_self)))
    for number in range(101):
        place.add_file(place.invent(f"stranger-{number}").base_name)
    with pytest.raises(StorewardenError, match="too many"):
        run(place, new)
    assert not left_private(place)
    assert new in names(place)
    assert audit_is_whole(place)


@pytest.mark.parametrize(
    ("odd", "status"),
    [("a\0b", "failed"), ("", "removed"), ("x" * 300, "failed"), ("../var", "removed")],
)
def test_an_intent_of_an_odd_name_stops_nothing(
    odd: str, status: str, place: ThrowawayStore
) -> None:
    name = strand(place, "x")
    assert [outcome.status for outcome in run(place, name)] == ["taken", "removed"]
    with open_log(log_of(place)) as log:
        log.append(Intent(name=odd, private=odd))
    other = strand(place, "y")
    assert [outcome.status for outcome in run(place, other)] == [status, "taken", "removed"]


@needs_root
@pytest.mark.parametrize("umask", UMASKS)
def test_no_umask_leaves_anything_behind(umask: int, place: ThrowawayStore) -> None:
    name = strand(place, "x")
    others = names(place) - {name}

    def with_umask() -> list[str]:
        os.umask(umask)
        return [outcome.status.value for outcome in run(place, name)]

    assert in_child(with_umask) == ["taken", "removed"]
    assert names(place) == others
    assert audit_is_whole(place)


@pytest.mark.parametrize("umask", UMASKS)
def test_no_umask_keeps_an_ordinary_user_out_of_what_it_makes(umask: int) -> None:
    def with_umask(directory: str) -> list[str]:
        place = ThrowawayStore.create(directory)
        place.add_valid("wanted")
        name = strand(place, "x")
        os.umask(umask)
        told = [outcome.status.value for outcome in run(place, name, store=alone(place))]
        assert audit_is_whole(place)
        assert os.stat(log_of(place)).st_mode & 0o777 == 0o640 & ~(umask & 0o077)
        place.close()
        return [*told, *left_private(place)]

    assert as_ordinary_user(with_umask) == ["taken", "removed"]
