# SPDX-License-Identifier: MIT
"""A run that was killed: the next one ends what it began, and loses nothing that is wanted."""

import itertools
import os

import pytest

from helper.bench import at, audit_is_whole, names, picture, records, run
from helper.child import dies, kill_self, kill_self_after, killed
from helper.trees import dig, left_private, write
from storewarden import host
from storewarden.helper.resume import Fate, fate
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import Known
from storewarden.throwaway import ThrowawayStore
from sweeps import alone

CHANGES = ("open", "write", host.sync.__name__, "fsync", "mkdir", "rmdir", "unlink", "ftruncate")
STEPS = (*CHANGES, "flock", "close", "rename", "rename_exclusive")


@pytest.mark.parametrize(
    ("step", "status"),
    [("intended", "kept"), ("taken", "removed"), ("purging", "removed"), ("purged", "removed")],
)
def test_the_next_run_ends_what_a_killed_one_began(
    step: str, status: str, place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    before = picture(place.path(scratch.base_name))
    others = names(place) - {scratch.base_name}
    killed(lambda: run(place, scratch.base_name, checkpoint=at(step, kill_self)))
    assert records(place, "result") == []
    (outcome,) = run(place)
    assert (outcome.base_name, outcome.status) == (scratch.base_name, status)
    assert outcome.reasons or (outcome.files, outcome.directories) == (3, 2)
    assert picture(place.path(scratch.base_name)) == (before if status == "kept" else {})
    # Nobody was left to remove the lock file that was made; it is debris like any other.
    assert names(place) - {scratch.base_name, path_lock(scratch)} == others
    assert output_lock(derivation, "out") in others
    (result,) = records(place, "result")
    assert (result["name"], result["resumed"]) == (scratch.base_name, 1)
    assert audit_is_whole(place)
    assert run(place) == []


def test_another_in_the_place_of_what_was_never_moved_is_not_what_was_kept(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    killed(lambda: run(place, scratch.base_name, checkpoint=at("intended", kill_self)))
    os.rename(place.path(scratch.base_name), f"{place.state_dir}/away")
    place.add_output(scratch)
    new = picture(place.path(scratch.base_name))
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert picture(place.path(scratch.base_name)) == new


def test_one_killed_before_its_intent_has_done_nothing(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    before = picture(place.path(scratch.base_name))
    killed(lambda: run(place, scratch.base_name, checkpoint=at("proved", kill_self)))
    assert run(place) == []
    assert records(place) == []
    assert picture(place.path(scratch.base_name)) == before
    assert run(place, scratch.base_name)[-1].status == "removed"


@pytest.mark.parametrize(
    ("step", "status"), [("proved", ""), ("intended", "kept"), ("taken", "removed")]
)
def test_a_killed_removal_of_a_lock_is_ended_too(
    step: str, status: str, place: ThrowawayStore, derivation: StorePath
) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    killed(lambda: run(place, lock, checkpoint=at(step, kill_self)))
    assert [outcome.status for outcome in run(place)] == ([status] if status else [])
    assert (lock in names(place)) is (status != "removed")
    assert not status or audit_is_whole(place)


def test_one_killed_in_the_middle_of_a_batch(place: ThrowawayStore) -> None:
    paths = [place.strand(place.add_derivation(name)).base_name for name in "abc"]
    reached: list[str] = []

    def die_at_the_second(step: str) -> None:
        reached.append(step)
        if reached.count("taken") == 2:
            kill_self()

    killed(lambda: run(place, *paths, checkpoint=die_at_the_second))
    assert len(left_private(place)) == 2
    outcomes = {outcome.base_name: outcome.status for outcome in run(place)}
    assert outcomes == {paths[0]: "removed", paths[1]: "removed"}
    assert not left_private(place)
    assert paths[2] in names(place)
    assert audit_is_whole(place)


def test_one_killed_after_any_system_call_can_be_gone_on_with(place: ThrowawayStore) -> None:
    store = alone(place)  # so that each run makes the same calls
    ends: set[tuple[bool, tuple[str, ...]]] = set()
    for count in itertools.count(1):
        path = place.strand(place.add_derivation(f"x-{count}"))
        others = names(place) - {path.base_name}
        before = picture(place.path(path.base_name))

        def die_after(count: int = count, name: str = path.base_name) -> None:
            kill_self_after(count, *STEPS)
            run(place, name, store=store)

        died = dies(die_after)
        said = tuple(outcome.status.value for outcome in run(place))
        there = picture(place.path(path.base_name))
        assert there in ({}, before), f"half a tree is left after {count} calls"
        assert not left_private(place), count
        assert audit_is_whole(place), count
        assert others <= names(place), count
        ends.add((bool(there), said))
        if not died:
            break
        if there:
            assert run(place, path.base_name, store=store)[-1].status == "removed"
    assert count > 40
    assert ends == {(True, ()), (True, ("kept",)), (False, ("removed",)), (False, ())}


def test_one_killed_again_and_again_while_it_ends_the_first(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    dig(f"{place.path(scratch.base_name)}/deep", 200)
    before = names(place) - {scratch.base_name}

    def die_in_the_middle() -> None:
        kill_self_after(60, "rename", "unlink")
        run(place)

    killed(lambda: run(place, scratch.base_name, checkpoint=at("purging", kill_self)))
    kills = 0
    while dies(die_in_the_middle):
        kills += 1
        assert kills < 20, "it never comes to its end"
    assert kills >= 2
    assert names(place) - {path_lock(scratch)} == before
    assert audit_is_whole(place)


# After a kill the world went on: the path was built again, or another thing had been taken.


@pytest.mark.parametrize("step", ["taken", "purging"])
def test_what_was_built_again_and_is_valid_does_not_stop_the_purge(
    step: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    killed(lambda: run(place, scratch.base_name, checkpoint=at(step, kill_self)))
    os.mkdir(place.path(scratch.base_name))
    write(f"{place.path(scratch.base_name)}/new", "built again")
    place.register(scratch)
    new = picture(place.path(scratch.base_name))
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert picture(place.path(scratch.base_name)) == new
    assert not left_private(place)
    assert audit_is_whole(place)
    assert run(place) == []


def test_what_had_taken_its_place_before_the_kill_is_put_back(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    def checkpoint(step: str) -> None:
        if step == "unchanged":
            os.rename(place.path(scratch.base_name), f"{place.state_dir}/away")
            os.mkdir(place.path(scratch.base_name))
            write(f"{place.path(scratch.base_name)}/never-proved-dead")
        if step == "taken":
            kill_self()

    killed(lambda: run(place, scratch.base_name, checkpoint=checkpoint))
    assert scratch.base_name not in names(place)
    (outcome,) = run(place)
    assert outcome.status == "kept"
    assert "it is not what was proved dead" in outcome.reasons[0]
    assert os.listdir(place.path(scratch.base_name)) == ["never-proved-dead"]
    assert not left_private(place)
    assert audit_is_whole(place)


# What becomes of what an interrupted run left, over every combination that there can be.


_SAID = list(itertools.product(Known, Known))


def becomes(said: tuple[Known, Known], *, proved: bool, there: bool) -> Fate:
    """The fate of what Nix and the database say so of."""
    nix, database = said
    return fate(nix, database, is_what_was_proved=proved, is_there_again=there)


@pytest.mark.parametrize("said", _SAID)
def test_another_thing_than_the_intent_speaks_of_is_never_purged(
    said: tuple[Known, Known],
) -> None:
    for there in (True, False):
        assert becomes(said, proved=False, there=there) is not Fate.PURGE


@pytest.mark.parametrize("said", [said for said in _SAID if Known.UNKNOWN in said])
def test_what_cannot_be_told_is_never_purged(said: tuple[Known, Known]) -> None:
    for proved, there in itertools.product((True, False), repeat=2):
        seen = becomes(said, proved=proved, there=there)
        assert seen is (Fate.PUT_BACK if Known.YES in said else Fate.WAIT)


@pytest.mark.parametrize("said", [said for said in _SAID if set(said) == {Known.NO}])
def test_what_was_proved_dead_and_is_not_valid_is_purged(said: tuple[Known, Known]) -> None:
    for there in (True, False):
        assert becomes(said, proved=True, there=there) is Fate.PURGE
        assert becomes(said, proved=False, there=there) is Fate.PUT_BACK


@pytest.mark.parametrize(
    "said", [said for said in _SAID if Known.YES in said and Known.UNKNOWN not in said]
)
def test_what_is_valid_goes_back_unless_it_is_there_again(said: tuple[Known, Known]) -> None:
    assert becomes(said, proved=True, there=False) is Fate.PUT_BACK
    assert becomes(said, proved=False, there=True) is Fate.PUT_BACK
    assert becomes(said, proved=True, there=True) is Fate.PURGE
