# SPDX-License-Identifier: MIT
"""The quick part of `make fuzz`: each input of the repository, by the law of each that reads it."""

from pathlib import Path

import pytest

from fuzz.targets import (
    CORPUS,
    DEAD,
    ROOTS,
    TARGETS,
    Target,
    database,
    doubted,
    known_heads,
    removable,
    store_in,
)
from storewarden.audit_reading import verify

INPUTS = [(target, path) for target in TARGETS for path in target.inputs]


@pytest.mark.parametrize(
    ("target", "path"), INPUTS, ids=[f"{target.name}-{path.name}" for target, path in INPUTS]
)
def test_the_law_of_a_reader_holds(target: Target, path: Path, tmp_path: Path) -> None:
    target.law(path.read_bytes(), str(tmp_path))


def test_every_input_has_a_reader_and_all_of_them_are_small() -> None:
    assert {target.corpus for target in TARGETS} == {path.name for path in CORPUS.iterdir()}
    assert sum(path.stat().st_size for _, path in INPUTS) < 200_000


@pytest.mark.parametrize("name", ["whole", "whole-without-floating-outputs"])
def test_of_a_whole_database_only_what_is_dead_can_go(name: str, tmp_path: Path) -> None:
    database((CORPUS / "database" / name).read_bytes(), str(tmp_path))
    store = store_in(str(tmp_path))
    assert doubted(store) == removable(store) == {DEAD}


def test_a_path_that_is_misspelt_in_the_database_is_doubted_and_stays(tmp_path: Path) -> None:
    path = CORPUS / "database/letter-of-a-path-changed-in-the-index"
    database(path.read_bytes(), str(tmp_path))
    store = store_in(str(tmp_path))
    assert doubted(store) == {DEAD, ROOTS[0]}
    assert removable(store) == {DEAD}


def test_whole_logs_verify_and_their_records_are_known_by_their_heads() -> None:
    for path in (CORPUS / "audit").glob("whole-*"):
        found = verify(str(path))
        assert not found.problem
        assert len(known_heads()[found.head][0]) == found.records
    assert len(known_heads()) == 9
