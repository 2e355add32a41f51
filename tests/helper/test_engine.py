# SPDX-License-Identifier: MIT
"""The story of a removal, told by what others see at each of its steps."""

import fcntl
import os

import pytest

from helper.bench import (
    at,
    audit_is_whole,
    can_be_locked,
    log_of,
    names,
    picture,
    records,
    request,
    run,
)
from helper.child import traced
from helper.serving import line_for, serving, stale_lock
from helper.trees import left_private, spread
from storewarden import __version__, host
from storewarden.claims import PROOF, proof_of
from storewarden.store.entries import EntryKind
from storewarden.store.paths import Deriver, Origin, StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import user_lock


def test_the_intent_is_on_record_before_anything_moves(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    before = picture(place.path(scratch.base_name))
    found = os.lstat(place.path(scratch.base_name))

    def look() -> None:
        (intent,) = records(place)
        assert intent["action"] == "intent"
        assert intent["name"] == scratch.base_name
        assert (intent["inode"], intent["device"]) == (found.st_ino, found.st_dev)
        owner = (intent["uid"], intent["gid"], intent["mode"], intent["ctime"])
        assert owner == (found.st_uid, found.st_gid, found.st_mode, int(found.st_ctime))
        assert (intent["kind"], [intent["private"]]) == ("output", left_private(place))
        assert intent["program"] == f"storewarden {__version__}"
        assert picture(place.path(scratch.base_name)) == before
        with open(log_of(place), "rb") as file:
            assert file.read().endswith(b"\n")
        seen.append(intent)

    seen: list[object] = []
    run(place, scratch.base_name, checkpoint=at("intended", look))
    assert seen


def test_the_intent_is_synced_before_the_rename_and_the_result_after_the_purge(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    sync = host.sync.__name__
    steps = (sync, "rename_exclusive", "purge")
    assert traced(lambda: run(place, scratch.base_name), *steps) == [
        sync,
        "rename_exclusive",
        "purge",
        sync,
    ]


def test_the_log_tells_who_asked_and_what_was_proved(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    run(place, scratch.base_name)
    intent, result = records(place)
    assert intent["requester"] == {"uid": os.getuid(), "pid": os.getpid(), "via": "test"}
    assert (intent["deriver"], intent["output"]) == (derivation.base_name, "out")
    assert intent["locks"] == sorted([path_lock(scratch), output_lock(derivation, "out")])
    absent = intent["absent"]
    assert isinstance(absent, list)
    origin = Origin(Deriver(derivation, "out"), (), scratch=True)
    asked = sorted(proof_of(EntryKind.OUTPUT, origin), key=lambda claim: claim.asked)
    assert absent == [claim.value for claim in asked]
    assert (result["op"], result["status"]) == (intent["seq"], "removed")
    assert (result["files"], result["directories"]) == (3, 2)
    assert audit_is_whole(place)


def test_all_of_nixs_locks_are_held_while_it_is_taken_and_none_while_it_is_purged(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    locks = [place.path(path_lock(scratch)), place.path(output_lock(derivation, "out"))]
    locks += [f"{place.state_dir}/gc.lock"]
    seen: dict[str, list[bool]] = {}

    def look(step: str) -> None:
        seen[step] = [os.path.exists(lock) and not can_be_locked(lock) for lock in locks]
        builders_go_on = can_be_locked(locks[-1], fcntl.LOCK_SH)
        seen[step].append(builders_go_on)

    run(place, scratch.base_name, checkpoint=look)
    held, free = [True] * 4, [False] * 3 + [True]
    assert list(seen) == ["proved", "intended", "unchanged", "taken", "purging", "purged"]
    assert [seen[step] for step in ("proved", "intended", "unchanged", "taken")] == [held] * 4
    assert [seen[step] for step in ("purging", "purged")] == [free] * 2


def test_the_lock_of_its_build_user_is_held_as_well_where_its_derivation_is_not_known(
    place: ThrowawayStore,
) -> None:
    path = place.invent("x")
    place.add_output(path)
    lock = f"{place.state_dir}/{user_lock(place)}"
    held: dict[str, bool] = {}

    def look(step: str) -> None:
        held[step] = os.path.exists(lock) and not can_be_locked(lock)

    run(place, path.base_name, checkpoint=look)
    assert {step for step, is_held in held.items() if is_held} == {
        "proved",
        "intended",
        "unchanged",
        "taken",
    }


@pytest.mark.parametrize("own_lock_was_there", [True, False])
def test_the_lock_files_are_afterwards_as_they_were(
    place: ThrowawayStore, scratch: StorePath, *, own_lock_was_there: bool
) -> None:
    if own_lock_was_there:
        place.add_lock(path_lock(scratch))
    top = os.fsencode(place.path(scratch.base_name))
    before = picture(place.store_dir.path)
    run(place, scratch.base_name)
    rest = {path: seen for path, seen in before.items() if not (path + b"/").startswith(top + b"/")}
    assert len(rest) == len(before) - 5
    assert picture(place.store_dir.path) == rest


def test_what_is_taken_is_moved_whole_and_purged_after(place: ThrowawayStore) -> None:
    path = place.invent("large")
    place.add_output(path)
    spread(f"{place.path(path.base_name)}/many", 100, 30)
    before = len(picture(place.path(path.base_name)))
    reached: list[str] = []

    def checkpoint(step: str) -> None:
        if step == "purging":
            (private,) = left_private(place)
            assert len(picture(place.path(f"{private}/{path.base_name}"))) == before
        reached.append(step)

    run(place, path.base_name, checkpoint=checkpoint)
    assert reached == ["proved", "intended", "unchanged", "taken", "purging", "purged"]


# A kind that is never removed is kept with a reason, and nobody can end the helper with it.


@pytest.mark.parametrize("suffix", ["", ".check", ".tmp", ".old-1-1"])
def test_a_kind_that_is_never_removed_is_kept(suffix: str, place: ThrowawayStore) -> None:
    name = place.invent("x").base_name + suffix
    place.add_file(name)
    kind = request(place, name).kind
    if kind in PROOF:
        pytest.skip("an ordinary user's own file may be an output of its builds")
    (outcome,) = run(place, name)
    assert (outcome.status, outcome.unproved) == ("kept", False)
    assert outcome.reasons == (kind.only_reported,)
    assert name in names(place)
    assert not records(place)


def test_no_request_ends_the_helper(near: ThrowawayStore) -> None:
    name = f"{near.invent('x').base_name}.check"
    near.add_file(name)
    with serving(near) as helper:
        outcome, end = helper.ask(line_for(near, name))
        assert (outcome["status"], end["error"]) == ("kept", "")
        assert helper.ask(line_for(near, stale_lock(near)))[0]["status"] == "removed"


@pytest.mark.parametrize("step", ["proved", "intended"])
def test_what_vanishes_after_its_proof_has_vanished(step: str, place: ThrowawayStore) -> None:
    name = place.strand(place.add_derivation("x")).base_name
    move = at(step, lambda: os.rename(place.path(name), f"{place.state_dir}/away"))
    (outcome,) = run(place, name, checkpoint=move)
    assert outcome.status == "vanished"
    assert records(place, "result")[0]["status"] == "vanished"
