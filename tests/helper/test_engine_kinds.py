# SPDX-License-Identifier: MIT
"""A kind that is never removed is kept with a reason, and nobody can end the helper with it."""

import os

import pytest

from helper.bench import at, names, records, request, run
from helper.serving import line_for, serving, stale_lock
from storewarden.claims import PROOF
from storewarden.throwaway import ThrowawayStore


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
