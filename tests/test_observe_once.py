# SPDX-License-Identifier: MIT
"""Each thing is looked at once, whatever is asked for of it: counted by Python's audit events."""

import json
import os
import sys
from pathlib import Path

import pytest

from command import Desk, open_desk, run
from explaining import write_nix
from storewarden.store.paths import output_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import needs_lock_table

pytestmark = needs_lock_table


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    opened = open_desk(place, tmp_path / "desk")
    write_nix(os.path.dirname(opened.nix))
    return opened


def counted(desk: Desk, command: str, *words: str) -> dict[str, int]:
    """How often that command looks at what, by tests/counted.py."""
    script = [sys.executable, os.path.join(os.path.dirname(__file__), "counted.py")]
    surroundings = ["--store-dir", desk.place.store_dir.path, "--state-dir", desk.place.state_dir]
    rest = [*surroundings, "--nix", desk.nix, *words]
    done = run([*script, desk.place.store_dir.path, command, *rest])
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stderr.splitlines()[-1])
    return counts


def test_explain_looks_at_each_thing_once_and_asks_nix_no_more_than_its_commands_need(
    desk: Desk,
) -> None:
    place = desk.place
    derivation = place.add_derivation("hello")
    debris = {place.strand(derivation).base_name, output_lock(derivation, "out")}
    valid = {derivation.base_name, place.add_valid("valid").base_name}
    for name in (*debris, *valid, place.invent("absent").base_name):
        counts = counted(desk, "explain", name)
        # Whether it is valid; and of what is, its roots and its referrers.
        assert counts.pop("nix") == (3 if name in valid else 1), name
        # For who uses it; and of debris, for who runs as a build user.
        assert counts.pop("processes") <= (2 if name in debris else 1), name
        assert max(counts.values()) == 1, (name, counts)


def test_a_sweep_and_the_list_of_locks_look_at_each_thing_once(desk: Desk) -> None:
    for number in range(3):
        desk.place.strand(desk.place.add_derivation(f"hello-{number}"))
    for command in (["scan", "--dry-run"], ["locks"]):
        counts = counted(desk, *command)
        assert {"store", "database", "locks"} <= counts.keys()
        assert max(counts.values()) == 1, counts
