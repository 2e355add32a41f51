# SPDX-License-Identifier: MIT
"""A part of `make faults`, by a seed: whatever fails, nothing that is wanted is touched or lost."""

import os

import pytest

from helper.faults import ERRORS, KILLED, all_faults, calls_of, can_trace, main, sample, survived

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_trace(), reason="root with strace makes system calls fail"),
]
MOST = int(os.environ.get("STOREWARDEN_FAULTS", "60"))


def test_no_system_call_that_fails_costs_what_lives_or_saves_what_is_dead() -> None:
    seed = int(os.environ.get("STOREWARDEN_SEED", int.from_bytes(os.urandom(4))))
    faults = all_faults()
    print(f"seed {seed}: {MOST} of {len(faults)}")  # noqa: T201 - shown where it fails
    assert [wrong for fault in sample(faults, MOST, seed) for wrong in survived(fault)] == []


def test_every_call_that_changes_something_is_among_what_fails() -> None:
    calls = {*calls_of("remove")} | {*calls_of("resume")}
    changing = {"flock", "openat", "mkdirat", "renameat2", "unlinkat", "ftruncate", "write"}
    assert changing | {"fdatasync", "fsync"} <= calls
    ways = {fault.how for fault in all_faults() if fault.call == "renameat2"}
    assert ways == {*ERRORS, KILLED}


def test_one_fault_can_be_tried_again_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "remove/renameat2/1/EIO", "--processes", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 tried, 0 of them wrong")
