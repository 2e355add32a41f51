# SPDX-License-Identifier: MIT
"""Which valid paths were built on what an interrupted build left, and what shows it."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helper.child import needs_root
from storewarden.daemon.remains import Holder, Remains, Sighting, after
from storewarden.daemon.status import Doubtful
from storewarden.observe import observe
from storewarden.protocol import Outcome, Status
from storewarden.store.entries import FileId
from storewarden.store.paths import (
    Deriver,
    StorePath,
    output_lock,
    path_lock,
    redirect_path,
)
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table
from tables import execute

NOW = 1000.0
FRESH = Sighting(Deriver(StorePath("26dj2bx997d5cck7cp3yv8zga3rcmw5f-job.drv"), "out"), ("x.lock",))
FIRST, SECOND = (7, 1.0), (8, 2.0)
TREE, OTHER = FileId(1, 10), FileId(1, 11)
Moment = tuple[FileId | None, Holder | None]


def seen(*moments: Moment) -> Sighting | None:
    """What is remembered after those, a second apart."""
    last: Sighting | None = FRESH
    for number, (file_id, holder) in enumerate(moments):
        assert last is not None
        last = after(last, file_id, holder, NOW + number)
    return last


def test_a_build_that_ends_well_leaves_nothing_to_remember() -> None:
    assert seen((None, FIRST), (TREE, FIRST), (None, FIRST), (None, None)) is None


def test_what_nobody_holds_was_left_and_a_build_that_goes_on_uses_it() -> None:
    last = seen((TREE, FIRST), (TREE, None), (TREE, SECOND))
    assert last is not None
    assert (last.left, last.used, last.gone) == (NOW + 1, True, False)
    last = seen((TREE, FIRST), (TREE, None), (TREE, SECOND), (None, SECOND), (None, None))
    assert last is not None
    assert (last.left, last.used, last.gone, last.holder) == (NOW + 1, True, True, None)


def test_what_another_process_holds_was_left_by_the_one_before() -> None:
    last = seen((TREE, FIRST), (TREE, SECOND))
    assert last is not None
    assert (last.left, last.used) == (NOW, True)


def test_a_later_process_of_the_same_number_is_another() -> None:
    last = seen((TREE, FIRST), (TREE, (FIRST[0], 9.0)))
    assert last is not None
    assert last.used


def test_what_was_not_there_under_the_first_was_not_left_by_it() -> None:
    last = seen((None, FIRST), (TREE, SECOND))
    assert last is not None
    assert (last.left, last.used) == (None, False)


def test_another_object_under_another_holder_is_a_build_of_its_own() -> None:
    last = seen((TREE, FIRST), (OTHER, SECOND))
    assert last is not None
    assert (last.left, last.used, last.file_id) == (None, False, OTHER)


@given(st.lists(st.tuples(st.none() | st.just(TREE), st.none() | st.just(FIRST)), max_size=8))
def test_one_build_alone_never_uses_what_it_left_unless_it_let_go(moments: list[Moment]) -> None:
    held = [moment for moment in moments if moment[1] is not None]
    last: Sighting | None = FRESH
    for file_id, holder in held:
        last = last and after(last, file_id, holder, NOW)
    assert last is not None
    assert last.left is None


# In a store


@pytest.fixture
def remains(place: ThrowawayStore) -> Remains:
    return Remains(place.store_dir, lambda *_, **__: None, hears=True)


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    return place.add_derivation("job")


def look(place: ThrowawayStore, remains: Remains) -> None:
    with observe(place.as_store()) as now:
        remains.look(now, NOW)


def register(place: ThrowawayStore, derivation: StorePath, name: str = "job") -> StorePath:
    """A valid output of that derivation, as Nix would register it after that moment."""
    path = place.add_valid(name)
    execute(
        place,
        "UPDATE ValidPaths SET deriver = ?, registrationTime = ? WHERE path = ?",
        place.path(derivation.base_name),
        str(int(NOW) + 1),
        place.path(path.base_name),
    )
    return path


def leave(place: ThrowawayStore, remains: Remains, derivation: StorePath) -> str:
    """What a build left that was seen at work, and its name."""
    lock = output_lock(derivation, "out")
    remains.made(lock)
    scratch = place.strand(derivation).base_name
    remains.made(scratch)
    with holding(place.path(lock)):
        look(place, remains)
    look(place, remains)
    assert remains.sightings[scratch].left == NOW
    return scratch


def end(place: ThrowawayStore, remains: Remains, scratch: str) -> None:
    """It is moved away, and looked at until that is settled."""
    os.rename(place.path(scratch), f"{place.state_dir}/moved")
    look(place, remains)
    look(place, remains)
    assert remains.is_idle


@needs_lock_table
def test_what_was_registered_when_the_remains_were_used_is_doubtful(
    place: ThrowawayStore, remains: Remains, derivation: StorePath
) -> None:
    scratch = leave(place, remains, derivation)
    path, other = register(place, derivation), register(place, derivation, "job-dev")
    end(place, remains, scratch)
    assert [*remains.doubtful] == [path.base_name], other
    one = remains.doubtful[path.base_name]
    assert (one.derivation, one.output, one.since) == (derivation.base_name, "out", NOW)


@needs_lock_table
@pytest.mark.parametrize("how", ["removed", "made anew", "count lost"])
def test_what_was_not_used_is_not_told(
    place: ThrowawayStore, remains: Remains, derivation: StorePath, how: str
) -> None:
    scratch = leave(place, remains, derivation)
    match how:
        case "removed":
            remains.heard(Outcome(scratch, Status.TAKEN, ()))
        case "made anew":
            remains.made(scratch)
        case _:
            remains.lost_count()
    register(place, derivation)
    end(place, remains, scratch)
    assert remains.doubtful == {}


@needs_lock_table
def test_where_changes_are_not_told_by_name_only_what_was_seen_at_work_is(
    place: ThrowawayStore, remains: Remains, derivation: StorePath
) -> None:
    remains.hears = False
    scratch = leave(place, remains, derivation)
    register(place, derivation)
    end(place, remains, scratch)
    assert remains.doubtful == {}


DOUBTFUL = Doubtful(
    name="5ggzvw75f943by0ixgziy7fiq4k9wfc9-job",
    registered=2,
    derivation="26dj2bx997d5cck7cp3yv8zga3rcmw5f-job.drv",
    output="out",
    scratch="pfs29h7l77fdk8hbvz51mxb40ksga5yl-job",
    since=NOW,
)


def beside(place: ThrowawayStore) -> StorePath:
    """Where that is built while it is there."""
    return redirect_path(StorePath(DOUBTFUL.derivation), StorePath(DOUBTFUL.name), place.store_dir)


@needs_lock_table
@pytest.mark.parametrize("stays", [False, pytest.param(True, marks=needs_root)])
@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_rebuild_that_comes_out_the_same_is_seen_by_the_lock_of_its_result(
    looks: int, place: ThrowawayStore, remains: Remains, *, stays: bool
) -> None:
    remains.doubtful = {DOUBTFUL.name: DOUBTFUL}
    remains.made(path_lock(StorePath(DOUBTFUL.name)))
    assert remains.doubtful, "nothing is built: whoever locks it does something else"
    remains.made(beside(place).base_name)
    if stays:  # as the store owner's, which Nix 2.8 makes of a result
        os.mkdir(place.path(beside(place).base_name))
    for _ in range(looks):
        look(place, remains)  # and nobody is at work any more, which may be told before the lock is
    remains.made(path_lock(StorePath("yrkwwz4dfxhf6di83pzsxjaiyz5ipra5-job")))
    assert remains.doubtful
    remains.made(path_lock(StorePath(DOUBTFUL.name)))
    assert bool(remains.doubtful) == (looks > 1)


@needs_lock_table
@pytest.mark.parametrize("asked", [False, True])
def test_what_removes_the_remains_of_a_rebuild_is_not_its_end(
    place: ThrowawayStore, remains: Remains, *, asked: bool
) -> None:
    remains.doubtful = {DOUBTFUL.name: DOUBTFUL}
    remains.made(beside(place).base_name)
    if asked:
        remains.asked([beside(place).base_name])
    else:
        place.add_output(beside(place))
        look(place, remains)
    remains.made(path_lock(StorePath(DOUBTFUL.name)))
    assert remains.doubtful


@pytest.mark.parametrize("how", ["stays", "is gone", "is registered anew"])
def test_what_is_gone_or_registered_anew_is_forgotten(
    place: ThrowawayStore, remains: Remains, derivation: StorePath, how: str
) -> None:
    path = register(place, derivation)
    with observe(place.as_store()) as now, now.database() as connection:
        full = place.path(path.base_name)
        [[number]] = connection.execute("SELECT id FROM ValidPaths WHERE path = ?", (full,))
    remains.doubtful = {
        path.base_name: Doubtful(path.base_name, number, derivation.base_name, "out", "x", NOW)
    }
    if how != "stays":
        execute(place, "DELETE FROM ValidPaths WHERE path = ?", full)
    if how == "is registered anew":
        execute(
            place,
            "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?, '', 1)",
            full,
        )
    with observe(place.as_store()) as now:
        remains.check(now, [])
        assert remains.doubtful
        remains.check(now, [path.base_name])
    assert bool(remains.doubtful) == (how == "stays")


def test_what_is_known_outlives_the_service(tmp_path: Path, remains: Remains) -> None:
    directory = f"{tmp_path}/watch"
    os.mkdir(directory)
    remains.keep(directory)
    assert os.listdir(directory) == []
    remains.doubtful = {DOUBTFUL.name: DOUBTFUL}
    remains.keep(directory)
    later = Remains(remains.store_dir, lambda *_, **__: None)
    assert later.recall(directory) == ""
    assert later.doubtful == remains.doubtful
    later.doubtful.clear()
    later.keep(directory)
    assert remains.recall(directory) == ""
    assert remains.doubtful == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "doubtful": []}',
        '{"version": 1}',
        '{"version": 1, "doubtful": [{}]}',
        "[" * 100_000,
        '{"version": 1, "doubtful": [{"name": "../x"}]}',
        json.dumps({"version": 1, "doubtful": [asdict(DOUBTFUL) | {"output": "../x"}]}),
    ],
)
def test_what_is_not_understood_is_set_aside_and_said(
    tmp_path: Path, remains: Remains, text: str
) -> None:
    directory = tmp_path / "watch"
    directory.mkdir()
    (directory / "doubtful.json").write_text(text)
    assert "doubtful.json: " in remains.recall(str(directory))
    assert os.listdir(directory) == ["doubtful.json.broken"]


def test_what_is_no_file_is_set_aside_and_makes_nobody_wait(
    tmp_path: Path, remains: Remains
) -> None:
    directory = tmp_path / "watch"
    directory.mkdir()
    os.mkfifo(directory / "doubtful.json")
    assert "is not a regular file" in remains.recall(str(directory))
    assert os.listdir(directory) == ["doubtful.json.broken"]
    assert remains.doubtful == {}
