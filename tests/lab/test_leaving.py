# SPDX-License-Identifier: MIT
"""The witness of the soak: real events of a directory, held against an audit log."""

import os
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from lab.leaving import unexplained, watching_what_leaves
from storewarden.audit import Intent, Members, Record, Result, members_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")
NAME = "a" * 32 + "-x"


def log(*records: Record) -> list[Members]:
    return [{**members_of(one), "seq": seq} for seq, one in enumerate(records, 1)]


ON_RECORD = log(Intent(name=NAME), Result(op=1, name=NAME, status="removed"))


def wrong(
    store: Path,
    *moves: str,
    records: Collection[Members] = (),
    deleted: Collection[str] = (),
    registered: Collection[str] = (),
) -> list[str]:
    """What is not explained after these moves, `-NAME`, `+NAME` or `OLD>NEW`."""
    (store / NAME).touch()
    with watching_what_leaves(str(store)) as seen:
        for move in moves:
            old, _, new = move.partition(">")
            if new:
                os.rename(store / old, store / new)
            elif move[0] == "+":
                (store / move[1:]).touch()
            else:
                (store / move[1:]).unlink()
    return unexplained(seen, records, deleted, registered)


def test_what_has_left_without_a_reason_is_told(tmp_path: Path) -> None:
    assert wrong(tmp_path, f"-{NAME}") == [f"{NAME} has left 1 times, with 0 reasons"]


def test_each_time_wants_a_reason_of_its_own(tmp_path: Path) -> None:
    twice = (f"-{NAME}", f"+{NAME}", f"-{NAME}")
    assert wrong(tmp_path, *twice, records=ON_RECORD) == [
        f"{NAME} has left 2 times, with 1 reasons"
    ]
    assert wrong(tmp_path, *twice, records=ON_RECORD, deleted=[NAME]) == []


def test_what_is_on_record_has_left(tmp_path: Path) -> None:
    assert wrong(tmp_path, f"-{NAME}", records=ON_RECORD) == []
    assert wrong(tmp_path, records=ON_RECORD) == [
        f"{NAME} is on record as removed 1 times, and left 0 times"
    ]


def test_what_is_moved_out_of_the_store_has_left(tmp_path: Path) -> None:
    (store := tmp_path / "store").mkdir()
    assert wrong(store, f"{NAME}>../x") == [f"{NAME} has left 1 times, with 0 reasons"]


def test_nix_may_put_something_in_its_place_that_it_registers(tmp_path: Path) -> None:
    again = (f"-{NAME}", f"+{NAME}")
    assert wrong(tmp_path, *again) == [f"{NAME} has left 1 times, with 0 reasons"]
    assert wrong(tmp_path, *again, registered=[NAME]) == []
    assert wrong(tmp_path, f"+{NAME}.tmp", f"-{NAME}", f"{NAME}.tmp>{NAME}") == []
    assert wrong(tmp_path, "+other", f"-{NAME}", f"other>{NAME}", registered=["other"]) == []


def test_nix_may_be_killed_when_it_has_a_copy_in_its_place_no_more(tmp_path: Path) -> None:
    assert wrong(tmp_path, f"+{NAME}.tmp", f"-{NAME}") == []
    assert wrong(tmp_path, f"-{NAME}.tmp", f"-{NAME}") == [
        f"{NAME} has left 1 times, with 0 reasons"
    ]


def test_a_copy_that_nix_has_made_may_go_again_where_its_result_is_valid_already(
    tmp_path: Path,
) -> None:
    copied = (f"+{NAME}.tmp", f"-{NAME}", f"{NAME}.tmp>{NAME}", f"-{NAME}")
    assert wrong(tmp_path, *copied) == []
    assert wrong(tmp_path, *copied, registered=[NAME]) == [
        f"{NAME} has left 2 times, with 1 reasons"
    ]
    new = "b" * 32 + "-x"
    moved = (f"{NAME}>{new}", f"-{new}")
    assert wrong(tmp_path, *moved, registered=[new]) == [f"{new} has left 1 times, with 0 reasons"]


def test_only_what_gets_registered_is_moved_to_another_name(tmp_path: Path) -> None:
    new = "b" * 32 + "-x"
    assert wrong(tmp_path, f"{NAME}>{new}") == [
        f"{NAME} was moved to {new}, which was never valid, and stays"
    ]
    (tmp_path / new).unlink()
    assert wrong(tmp_path, f"{NAME}>{new}", registered=[new]) == []
    assert wrong(tmp_path, f"{NAME}>{new}", f"-{new}", deleted=[new]) == []


def test_names_that_come_and_go_need_no_reason(tmp_path: Path) -> None:
    for name in ("tmp-storewarden-1-x", f"{NAME}.lock", ".tmp-link-1-2", "add-1"):
        assert wrong(tmp_path, f"+{name}", f"-{name}") == []
