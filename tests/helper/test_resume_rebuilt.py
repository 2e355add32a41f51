# SPDX-License-Identifier: MIT
"""After a kill the world went on: the path was built again, or another thing had been taken."""

import os

import pytest

from helper.bench import at, audit_is_whole, names, picture, run
from helper.child import kill_self, killed
from helper.trees import left_private, write
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore


@pytest.fixture
def scratch(place: ThrowawayStore) -> StorePath:
    return place.strand(place.add_derivation("x"))


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
    assert os.listdir(place.path(scratch.base_name)) == ["never-proved-dead"]
    assert not left_private(place)
    assert audit_is_whole(place)
