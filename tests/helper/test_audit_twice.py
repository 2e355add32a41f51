# SPDX-License-Identifier: MIT
"""Crashes that meet the traces of an earlier one."""

import os
from pathlib import Path

import pytest

from storewarden.audit import Other
from storewarden.audit_reading import log_files, verify
from storewarden.errors import AuditUnavailableError
from storewarden.helper.audit import ROTATE_AT, open_log


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "audit.jsonl")


def note(path: str, text: str = "") -> int:
    with open_log(path) as log:
        return log.append(Other("note", {"text": text}))


def test_a_first_record_torn_after_a_rotation_does_not_begin_the_chain_anew(path: str) -> None:
    note(path, "x" * ROTATE_AT)
    assert note(path) == 3
    assert len(log_files(path)) == 2
    os.truncate(path, 20)
    assert note(path) == 4
    assert verify(path).problem == ""


@pytest.mark.parametrize("times", [2, 5])
def test_a_log_whose_mending_was_torn_as_well_is_explained(times: int, path: str) -> None:
    note(path)
    for _ in range(times):
        with open(path, "ab") as file:
            file.write(b'{"action":"recov\n')
    assert note(path) == 3
    assert verify(path).problem == ""


def test_an_empty_rotated_file_is_an_error_that_is_told(path: str) -> None:
    note(path, "x" * ROTATE_AT)
    note(path)
    rotated, _ = log_files(path)
    os.truncate(rotated, 0)
    os.unlink(path)
    with pytest.raises(AuditUnavailableError, match="damaged at its end"):
        note(path)
