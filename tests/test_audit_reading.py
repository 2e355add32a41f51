# SPDX-License-Identifier: MIT
import itertools
import os
from pathlib import Path

import pytest

from storewarden.audit import Intent, seal, unseal
from storewarden.audit_reading import verify
from storewarden.errors import AuditUnavailableError
from storewarden.helper.audit import open_log

RECORDS = 5


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "log" / "audit.jsonl")
    with open_log(path) as log:
        for number in range(RECORDS):
            log.append(Intent(name=f"entry-{number}"))
    return path


def lines_of(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return file.readlines()


def problem_with(path: str, lines: list[bytes]) -> str:
    with open(path, "wb") as file:
        file.writelines(lines)
    return verify(path).problem


def test_an_untouched_log_is_in_order(path: str) -> None:
    verified = verify(path)
    assert (verified.problem, verified.records, verified.open_intents) == ("", RECORDS, RECORDS)


@pytest.mark.parametrize("number", range(RECORDS))
def test_an_edited_record_is_shown(number: int, path: str) -> None:
    lines = lines_of(path)
    lines[number] = lines[number].replace(b"entry-", b"other-")
    assert f"line {number + 1}: its hash" in problem_with(path, lines)


def test_every_single_changed_byte_is_shown(path: str) -> None:
    lines = lines_of(path)
    for place in range(len(lines[2]) - 1):
        changed = bytearray(lines[2])
        changed[place] ^= 1
        assert problem_with(path, [*lines[:2], bytes(changed), *lines[3:]]), place


@pytest.mark.parametrize("number", range(RECORDS - 1))
def test_an_edited_record_with_a_new_hash_of_its_own_is_shown(number: int, path: str) -> None:
    lines = lines_of(path)
    record = {**unseal(lines[number]), "name": "other"}
    del record["hash"]
    lines[number] = seal(record)
    assert f"line {number + 2}: " in problem_with(path, lines)


@pytest.mark.parametrize("number", range(RECORDS - 1))
def test_a_removed_record_is_shown(number: int, path: str) -> None:
    lines = lines_of(path)
    assert "does not follow" in problem_with(path, lines[:number] + lines[number + 1 :])


def test_a_removed_end_shows_in_the_head_alone(path: str) -> None:
    head = verify(path).head
    assert problem_with(path, lines_of(path)[:-1]) == ""
    assert verify(path).head != head


def test_every_other_order_is_shown(path: str) -> None:
    lines = lines_of(path)
    for order in itertools.permutations(range(RECORDS)):
        shown = problem_with(path, [lines[number] for number in order])
        assert bool(shown) is (order != tuple(range(RECORDS))), order


@pytest.mark.parametrize("number", range(RECORDS))
def test_a_repeated_record_is_shown(number: int, path: str) -> None:
    lines = lines_of(path)
    assert "does not follow" in problem_with(path, [*lines, lines[number]])


def test_an_unexplained_torn_line_is_shown(path: str) -> None:
    lines = lines_of(path)
    assert f"line {RECORDS}" in problem_with(path, [*lines[:-1], lines[-1][:-20]])
    assert "line 1" in problem_with(path, [b"torn\n", *lines])


def test_a_torn_line_that_another_record_explains_is_not_excused(path: str) -> None:
    lines = lines_of(path)
    with open(path, "ab") as file:
        file.write(b"torn")
    with open_log(path):
        pass
    assert verify(path).problem == ""
    explained = lines_of(path)
    assert explained[: RECORDS + 1] == [*lines, b"torn\n"]
    assert problem_with(path, [*lines, b"other\n", *explained[RECORDS + 1 :]])
    assert problem_with(path, [*lines, b"torn\n", b"torn\n", *explained[RECORDS + 1 :]])


def test_a_log_that_is_not_there_is_no_log_in_order(path: str) -> None:
    os.unlink(path)
    with pytest.raises(AuditUnavailableError, match="there is no audit log"):
        verify(path)
