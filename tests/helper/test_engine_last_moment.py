# SPDX-License-Identifier: MIT
"""What happens between the proof and the rename: the last chance to be wrong."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from helper.bench import at, audit_is_whole, names, picture, records, run
from helper.child import kill_self, killed, needs_root
from helper.trees import left_private, write
from storewarden.protocol import CANNOT_BE_PUT_BACK
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import holding


def _registered(place: ThrowawayStore, path: StorePath) -> None:
    place.register(path)


def _database_gone(place: ThrowawayStore, _: StorePath) -> None:
    os.rename(f"{place.state_dir}/db/db.sqlite", f"{place.state_dir}/db/away")


def _schema_changed(place: ThrowawayStore, _: StorePath) -> None:
    with open(f"{place.state_dir}/db/schema", "w", encoding="ascii") as file:
        file.write("11")


@pytest.mark.parametrize("event", [_registered, _database_gone, _schema_changed])
@pytest.mark.parametrize("step", ["proved", "intended", "unchanged", "taken"])
def test_what_may_have_become_valid_is_put_back_whole(
    step: str,
    event: Callable[[ThrowawayStore, StorePath], None],
    place: ThrowawayStore,
    scratch: StorePath,
) -> None:
    before = picture(place.store_dir.path)
    (outcome,) = run(place, scratch.base_name, checkpoint=at(step, lambda: event(place, scratch)))
    assert outcome.status == "kept"
    assert outcome.reasons == ("it was registered at the last moment, so it was put back",)
    assert picture(place.store_dir.path) == before
    intent, result = records(place)
    assert (intent["action"], result["action"]) == ("intent", "result")
    assert (result["op"], result["status"]) == (intent["seq"], "kept")
    assert audit_is_whole(place)


@pytest.mark.parametrize("step", ["proved", "intended", "unchanged", "taken"])
@pytest.mark.parametrize("number", [0, 1])
def test_what_is_no_longer_covered_because_a_lock_file_was_unlinked_stays(
    number: int,
    step: str,
    place: ThrowawayStore,
    derivation: StorePath,
    scratch: StorePath,
) -> None:
    lock = place.path((output_lock(derivation, "out"), path_lock(scratch))[number])
    before = picture(place.path(scratch.base_name))
    # As a worker of Nix does at its end that had waited for a file which was never marked.
    (outcome,) = run(place, scratch.base_name, checkpoint=at(step, lambda: os.unlink(lock)))
    assert outcome.status == "kept"
    assert "taken away at the last moment" in outcome.reasons[0]
    assert ("put back" in outcome.reasons[0]) == (step == "taken")
    assert picture(place.path(scratch.base_name)) == before
    assert not left_private(place)
    assert audit_is_whole(place)
    assert run(place, scratch.base_name)[-1].status == "removed"


@pytest.mark.parametrize("step", ["intended", "unchanged"])
def test_what_took_its_place_is_there_afterwards(
    step: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    away = f"{place.state_dir}/away"

    def replace_it() -> None:
        os.rename(place.path(scratch.base_name), away)
        os.mkdir(place.path(scratch.base_name))
        write(f"{place.path(scratch.base_name)}/new")

    (outcome,) = run(place, scratch.base_name, checkpoint=at(step, replace_it))
    assert outcome.status == "kept"
    assert (
        outcome.reasons
        == {
            "intended": ("it changed at the last moment",),
            "unchanged": ("it was replaced at the last moment, so it was put back",),
        }[step]
    ), step
    assert os.listdir(place.path(scratch.base_name)) == ["new"]
    assert sorted(os.listdir(away)) == ["bin", "link", "log"]
    assert not left_private(place)
    assert audit_is_whole(place)


@pytest.mark.parametrize("step", ["intended", "unchanged"])
def test_a_link_that_took_its_place_is_not_followed(
    step: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    victim = f"{place.state_dir}/victim"
    os.mkdir(victim)
    write(f"{victim}/file")
    before = picture(victim)

    def replace_it() -> None:
        os.rename(place.path(scratch.base_name), f"{place.state_dir}/away")
        os.symlink(victim, place.path(scratch.base_name))

    (outcome,) = run(place, scratch.base_name, checkpoint=at(step, replace_it))
    assert outcome.status == "kept"
    assert os.readlink(place.path(scratch.base_name)) == victim
    assert picture(victim) == before


def test_what_cannot_be_put_back_is_overwritten_by_nothing(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    before = set(os.listdir(place.path(scratch.base_name)))

    def build_it_again() -> None:
        place.register(scratch)
        write(place.path(scratch.base_name), "the new one")

    (outcome,) = run(place, scratch.base_name, checkpoint=at("taken", build_it_again))
    assert outcome.status == "failed"
    (private,) = left_private(place)
    (reason,) = outcome.reasons
    assert reason.startswith("it was registered at the last moment, and it ")
    assert reason.endswith(f" from {private}: file exists")
    assert set(os.listdir(place.path(f"{private}/{scratch.base_name}"))) == before
    with open(place.path(scratch.base_name), encoding="utf-8") as file:
        assert file.read() == "the new one"
    assert records(place, "result") == []
    assert [one.status for one in run(place)] == ["removed"], "what is valid is there again"
    assert audit_is_whole(place)


def exchange(place: ThrowawayStore, scratch: StorePath, *, again: bool) -> None:
    """Have what nobody looked at taken instead of it; and another made in its place."""
    path = place.path(scratch.base_name)

    def meanwhile(step: str) -> None:
        if step == "unchanged":
            os.rename(path, f"{place.state_dir}/away")
            os.mkdir(path)
            write(f"{path}/never looked at")
            os.chown(path, place.builder + 1, place.builder)
        elif step == "taken" and again:
            os.mkdir(path)
        elif step == "taken":
            kill_self()

    def take() -> None:
        run(place, scratch.base_name, checkpoint=meanwhile)

    take() if again else killed(take)


@needs_root
@pytest.mark.parametrize("lock", ["its path's", "its derivation's", "the collector's"])
@pytest.mark.parametrize("again", [False, True])
def test_what_nobody_looked_at_waits_while_a_build_may_want_its_place(
    *, lock: str, again: bool, place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    exchange(place, scratch, again=again)
    there = place.path(scratch.base_name)
    held = {
        "its path's": place.path(path_lock(scratch)),
        "its derivation's": place.path(output_lock(derivation, "out")),
        "the collector's": f"{place.state_dir}/gc.lock",
    }
    with holding(held[lock]):
        for _ in range(2):
            (outcome,) = run(place)
            assert (outcome.base_name, outcome.status) == (scratch.base_name, "failed")
            assert CANNOT_BE_PUT_BACK in outcome.reasons[0]
            assert "is held" in outcome.reasons[0]
            assert os.path.lexists(there) is again
    (outcome,) = run(place)
    if again:
        assert (outcome.status, os.listdir(there)) == ("removed", [])
    else:
        assert (outcome.status, os.listdir(there)) == ("kept", ["never looked at"])
    assert not left_private(place)
    assert audit_is_whole(place)


@pytest.mark.parametrize("change", ["write", "chmod", "rebuild"])
def test_what_changes_while_the_intent_is_written_is_never_moved(
    change: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    path = place.path(scratch.base_name)

    def act() -> None:
        match change:
            case "write":
                write(f"{path}/written-meanwhile")
            case "chmod":
                os.chmod(path, 0o700)
            case _:  # as `nix-build --check` does with what lies at its redirect
                shutil.rmtree(path)
                os.mkdir(path)

    inodes: set[int] = set()

    def checkpoint(step: str) -> None:
        if step == "intended":
            act()
            inodes.add(os.lstat(path).st_ino)

    (outcome,) = run(place, scratch.base_name, checkpoint=checkpoint)
    assert (outcome.status, outcome.reasons) == ("kept", ("it changed at the last moment",))
    assert {os.lstat(path).st_ino} == inodes
    assert not left_private(place)
    assert audit_is_whole(place)


@needs_root
def test_what_root_has_put_in_its_place_is_never_purged(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    exchange(place, scratch, again=True)
    (private,) = left_private(place)
    os.chown(place.path(f"{private}/{scratch.base_name}"), 0, 0)
    for _ in range(2):
        (outcome,) = run(place)
        assert (outcome.status, CANNOT_BE_PUT_BACK in outcome.reasons[0]) == ("failed", True)
    os.rmdir(place.path(scratch.base_name))
    assert [outcome.status for outcome in run(place)] == ["kept"]
    assert os.listdir(place.path(scratch.base_name)) == ["never looked at"]
    assert audit_is_whole(place)


@needs_root
@pytest.mark.parametrize("again", [False, True])
def test_what_nobody_looked_at_waits_where_its_locks_are_not_known(
    *, again: bool, place: ThrowawayStore
) -> None:
    stranger = place.invent("stranger")
    place.add_output(stranger)
    exchange(place, stranger, again=again)
    for _ in range(2):
        (outcome,) = run(place)
        assert (outcome.status, CANNOT_BE_PUT_BACK in outcome.reasons[0]) == ("failed", True)
        assert "which locks cover it is not known" in outcome.reasons[0]
        assert os.path.lexists(place.path(stranger.base_name)) is again
    (private,) = left_private(place)
    assert os.listdir(place.path(f"{private}/{stranger.base_name}")) == ["never looked at"]


def test_what_changed_while_it_was_looked_at_stays(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    def touch(_: object) -> list[int]:
        write(f"{place.path(scratch.base_name)}/written-meanwhile")
        return []

    (outcome,) = run(place, scratch.base_name, store=replace(place.as_store(), processes_of=touch))
    assert outcome.status == "kept"
    assert outcome.reasons == ("it is no longer the entry that was looked at",)
    assert not records(place)


def test_what_vanishes_after_its_proof_hurts_nobody(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    other = place.strand(place.add_derivation("y")).base_name
    move = at(
        "intended", lambda: os.rename(place.path(scratch.base_name), f"{place.state_dir}/away")
    )
    outcomes = run(place, scratch.base_name, other, checkpoint=move)
    assert outcomes[0].status in {"vanished", "failed"}
    assert outcomes[-1].status == "removed"
    assert not os.path.exists(place.path(path_lock(scratch)))
    assert os.path.exists(place.path(output_lock(derivation, "out")))
    assert not left_private(place)
    assert audit_is_whole(place)


@pytest.mark.parametrize("step", ["intended", "taken"])
def test_a_private_directory_that_is_collected_under_way_hurts_nobody(
    step: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    def collect() -> None:
        (private,) = left_private(place)
        for top, directories, files in os.walk(place.path(private), topdown=False):
            for name in files:
                os.unlink(f"{top}/{name}")
            for name in directories:
                path = f"{top}/{name}"
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)
        os.rmdir(place.path(private))

    before = names(place) - {scratch.base_name}
    outcome = run(place, scratch.base_name, checkpoint=at(step, collect))[-1]
    assert outcome.status == {"intended": "failed", "taken": "vanished"}[step]
    assert [result["status"] for result in records(place, "result")] == [outcome.status]
    assert (scratch.base_name in names(place)) is (step == "intended")
    assert names(place) - {scratch.base_name} == before
    assert audit_is_whole(place)
