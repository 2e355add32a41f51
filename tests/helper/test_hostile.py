# SPDX-License-Identifier: MIT
"""A part of `make hostile`, by a seed: whatever builders and clients do, no victim is hurt."""

import os
import random
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from helper.hostile import fought, main, stage, survived
from storewarden.protocol import RemoveRequest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or sys.platform != "linux",
        reason="root on Linux tries this, with processes of other users",
    ),
]
ROUNDS = int(os.environ.get("STOREWARDEN_HOSTILE", "6"))


def test_no_builder_and_no_client_has_anything_removed_or_changed_but_debris() -> None:
    seed = int(os.environ.get("STOREWARDEN_SEED", int.from_bytes(os.urandom(3))))
    print(f"seed {seed}: {ROUNDS} rounds")  # noqa: T201 - shown where it fails
    rounds = [survived(seed + number) for number in range(ROUNDS)]
    assert [line for _, wrong in rounds for line in wrong] == []
    assert all(counts["removed in all"] for counts, _ in rounds)


def test_builders_do_get_at_the_store_and_at_their_trees() -> None:
    with stage(random.Random(1)) as one:  # noqa: S311 - no secret
        before = {name: os.listdir(one.place.path(name)) for name in one.debris}
        fought(one, ["exchange", "plant", "swap"], (), lambda _: [], Counter(), 1.0)
        planted = [name for name in one.free if os.path.lexists(one.place.path(name))]
        links = [name for name in one.debris if not os.path.isdir(one.place.path(name))]
        swapped = [d for d in set(before) - {*links} if os.listdir(one.place.path(d)) != before[d]]
    assert planted
    assert links or swapped


def test_a_remover_that_follows_what_it_meets_would_be_caught() -> None:
    with stage(random.Random(1)) as one:  # noqa: S311 - no secret

        def remove(requests: Sequence[RemoveRequest]) -> list[str]:
            for name in (request.base_name for request in requests):
                for top, directories, files in os.walk(one.place.path(name)):
                    for child in (*directories, *files):
                        os.chmod(f"{top}/{child}", 0o700)
            return []

        wrong = fought(one, [], (), remove, Counter(), 0.1)
    assert any(f"{one.victims[0]} was" in line for line in wrong), wrong


def test_a_round_can_be_fought_again_by_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "1"]) == 0
    assert capsys.readouterr().out.startswith("nothing is wrong; ")
