# SPDX-License-Identifier: MIT
import os
from pathlib import Path

import pytest

from helper.child import kill_self, kill_self_after, killed
from json_documents import checked_records
from storewarden.audit import Intent, Other, Result, Rotated, seal
from storewarden.audit_reading import log_files, read_records, verify
from storewarden.errors import StorewardenError
from storewarden.helper.audit import ROTATE_AT, open_log


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "audit.jsonl")


def grow(path: str) -> None:
    """Make the log so long that the next session rotates it."""
    with open_log(path) as log:
        log.append(Other("note", {"text": "x" * ROTATE_AT}))


def note(path: str) -> int:
    with open_log(path) as log:
        return log.append(Other("note"))


def die_after_the_rename(path: str) -> None:
    kill_self_after(1, "rename")
    note(path)


def test_the_chain_goes_on_from_file_to_file(path: str) -> None:
    note(path)
    for number in range(1, 4):
        grow(path)
        note(path)
        assert len(log_files(path)) == 1 + number
    verified = verify(path)
    assert (verified.problem, verified.files) == ("", log_files(path))
    records = list(read_records(path))
    assert [record["seq"] for record in records] == list(range(1, verified.records + 1))
    rotated = [record for record in records if record["action"] == "rotated"]
    assert len(rotated) == 3
    checked_records(rotated)
    assert os.path.getsize(path) < ROTATE_AT


def test_a_log_that_is_not_too_long_stays(path: str) -> None:
    for _ in range(3):
        note(path)
    assert log_files(path) == (path,)


def test_open_intents_go_with_the_log_from_file_to_file(path: str) -> None:
    with open_log(path) as log:
        intent = log.append(Intent(name="a", private="p", locks=("b", "c")))
        some = log.append(Intent(name="d"))
        log.append(Result(op=some, status="partial", files=7, directories=1, bytes=512))
    for number in range(1, 4):
        grow(path)
        with open_log(path) as log:
            assert len(log_files(path)) == 1 + number, "it was not rotated"
            assert list(log.chain.open_intents) == [intent]
            (whole,) = log.chain.open_intents.values()
            assert (whole.name, whole.private, whole.locks) == ("a", "p", ("b", "c"))
            assert [(one.name, one.files) for one in log.chain.partial.values()] == [("d", 7)]
        assert (verify(path).problem, verify(path).open_intents) == ("", 1)
    with open_log(path) as log:
        log.append(Result(op=intent, status="removed"))
        log.append(Result(op=some, status="removed"))
    grow(path)
    with open_log(path) as log:
        assert not log.chain.open_intents
        assert not log.chain.partial
    assert (verify(path).problem, verify(path).open_intents) == ("", 0)


def test_one_killed_after_a_rotation_leaves_its_intents_open(path: str) -> None:
    with open_log(path) as log:
        intent = log.append(Intent(name="a"))
    grow(path)
    killed(lambda: die_after_the_rename(path))
    assert not os.path.exists(path)
    with open_log(path) as log:
        assert list(log.chain.open_intents) == [intent]


def test_a_log_that_an_earlier_version_rotated_is_gone_on_with(path: str) -> None:
    note(path)
    with open_log(path) as log:
        log.append(Rotated())
    os.rename(path, f"{path.removesuffix('.jsonl')}-{2:016d}.jsonl")
    assert note(path) == 3
    assert verify(path).problem == ""


@pytest.mark.parametrize("odd", [{"open": [1], "partial": []}, {"open": [{}], "partial": [{}]}])
def test_a_rotated_file_with_an_odd_end_is_an_error_that_is_told(
    path: str, odd: dict[str, object]
) -> None:
    note(path)
    with open_log(path) as log:
        sealed = seal({"v": 1, "seq": 2, "prev": log.chain.last, "action": "rotated", **odd})
    with open(path, "ab") as file:
        file.write(sealed)
    os.rename(path, f"{path.removesuffix('.jsonl')}-{2:016d}.jsonl")
    with pytest.raises(StorewardenError, match="damaged at its end"):
        note(path)


def test_one_killed_before_the_first_record_of_the_new_file(path: str) -> None:
    grow(path)
    killed(lambda: die_after_the_rename(path))
    assert not os.path.exists(path)
    assert len(log_files(path)) == 1
    assert note(path) == 3
    assert (verify(path).problem, verify(path).records) == ("", 3)


def test_one_killed_when_the_new_file_was_still_empty(path: str) -> None:
    grow(path)

    def die_in_the_new_file() -> None:
        with open_log(path):
            kill_self()

    killed(die_in_the_new_file)
    assert os.path.getsize(path) == 0
    assert note(path) == 3
    assert verify(path).problem == ""


def test_one_killed_between_the_last_record_and_the_rename(path: str) -> None:
    grow(path)

    def die_before_the_rename() -> None:
        kill_self_after(1, "fdatasync" if hasattr(os, "fdatasync") else "fsync")
        note(path)

    killed(die_before_the_rename)
    assert log_files(path) == (path,)
    note(path)
    assert len(log_files(path)) == 2
    assert verify(path).problem == ""


def test_a_missing_rotated_file_is_shown(path: str) -> None:
    for _ in range(3):
        grow(path)
    first, second, last = log_files(path)
    assert last == path
    os.rename(second, f"{second}.away")
    assert "does not follow" in verify(path).problem
    os.rename(f"{second}.away", second)
    assert verify(path).problem == ""
    os.rename(first, f"{first}.away")
    assert "does not follow" in verify(path).problem


def test_after_a_rotated_file_with_a_broken_end_nothing_is_begun(path: str) -> None:
    grow(path)
    killed(lambda: die_after_the_rename(path))
    (rotated,) = log_files(path)
    os.truncate(rotated, os.path.getsize(rotated) - 10)
    with pytest.raises(StorewardenError), open_log(path):
        pytest.fail("a chain was begun anew")
