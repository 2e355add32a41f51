# SPDX-License-Identifier: MIT
"""A part of `make power`, by a seed: whenever the power fails, the next run can tell and go on."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from helper.faults import can_trace
from helper.power import (
    SCENARIOS,
    SLOWER,
    Cut,
    Recording,
    at_random,
    cuts,
    in_order,
    main,
    recorded,
    survived,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_trace(), reason="root with strace records what the helper does"),
]
MOST = int(os.environ.get("STOREWARDEN_POWER", "10"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_power_cut_costs_what_lives_or_hides_what_was_removed(scenario: str) -> None:
    seed = int(os.environ.get("STOREWARDEN_SEED", int.from_bytes(os.urandom(4))))
    with recorded(scenario) as recording:
        most = 1 + MOST // SLOWER.get(scenario, 1)
        tried = cuts(recording, seed, most, most)
        print(f"seed {seed}: {len(tried)}")  # noqa: T201 - shown where it fails
        wrong = [(str(cut), line) for cut in tried for line in survived(recording, cut)]
    assert wrong == []


@pytest.mark.parametrize(
    ("scenario", "model", "says"),
    [
        ("first", at_random, "not on record"),
        ("first", at_random, "is not whole"),
        ("first", in_order, "on record as removed"),
        ("replaced", in_order, "what was never proved dead is gone"),
        ("killed-after-it-was-put-back", in_order, "what was never proved dead is gone"),
    ],
)
def test_without_its_syncs_a_power_cut_would_show(
    scenario: str, model: Callable[[Recording, random.Random], Iterator[Cut]], says: str
) -> None:
    with recorded(scenario) as recording:
        careless = replace(recording, ops=[op for op in recording.ops if op.what != "sync"])
        tried = itertools.islice(model(careless, random.Random(1)), 1000)  # noqa: S311 - no secret
        assert any(says in wrong for cut in tried for wrong in survived(careless, cut))


def test_one_cut_can_be_tried_again_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with recorded("first") as recording:
        for cut in cuts(recording, 1, 50, 50):
            assert Cut.parse(str(cut)) == cut
    assert main(["--only", "first/0:"]) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"
