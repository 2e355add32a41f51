# SPDX-License-Identifier: MIT
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from json_documents import checked_records
from storewarden.audit import Intent, Result, seal, unseal
from storewarden.audit_reading import read_records, verify
from storewarden.errors import BadMessageError
from storewarden.helper.audit import AuditLog, open_log


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "audit.jsonl")


def whole_log(path: str, records: int = 3) -> bytes:
    with open_log(path) as log:
        for number in range(records):
            log.append(Intent(name=f"entry-{number}"))
    with open(path, "rb") as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def load(path: str) -> AuditLog:
    """What a session reads and mends, without the cost of a durable append."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        log = AuditLog(path, fd)
        log.load()
        return log
    finally:
        os.close(fd)


def test_a_last_record_cut_anywhere_is_mended_and_explained(path: str) -> None:
    content = whole_log(path)
    start = content.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(content) + 1):
        write(path, content[:end])
        log = load(path)
        whole = end >= len(content) - 1
        explained = 0 if whole or end == start else 1
        assert set(log.chain.open_intents) == ({1, 2, 3} if whole else {1, 2}), end
        verified = verify(path)
        assert verified.problem == "", end
        assert verified.records == 2 + whole + explained, end
        with open(path, "rb") as file:
            assert file.read().startswith(content[:end]), "what was begun must stay"


def test_a_complete_record_that_lacks_only_its_newline_counts(path: str) -> None:
    content = whole_log(path)
    write(path, content[:-1])
    with open_log(path) as log:
        assert set(log.chain.open_intents) == {1, 2, 3}
        assert log.append(Result(op=3, status="removed")) == 4
    assert [record["action"] for record in read_records(path)] == ["intent"] * 3 + ["result"]
    assert verify(path).problem == ""


def test_a_torn_record_whose_newline_was_mended_before_another_crash(path: str) -> None:
    content = whole_log(path)
    write(path, content[:-10] + b"\n")
    assert load(path).chain.seq == 3
    last = list(read_records(path))[-1]
    assert last["action"] == "recovered"
    checked_records([last])
    assert verify(path).problem == ""


def test_a_first_record_that_was_torn_is_mended(path: str) -> None:
    content = whole_log(path, records=1)
    write(path, content[:20])
    assert load(path).chain.seq == 1
    assert verify(path).problem == ""


def test_a_torn_log_is_not_written_on_by_the_session_that_tore_it(path: str) -> None:
    content = whole_log(path)
    write(path, content[:-10])
    load(path)
    before = verify(path)
    load(path)
    assert verify(path) == before, "mended once is mended"


@given(tail=st.binary(min_size=1, max_size=300).filter(lambda b: b"\n" not in b))
def test_any_torn_end_is_mended(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    path = str(tmp_path_factory.mktemp("log") / "audit.jsonl")
    when = "2026-01-01T00:00:00Z"
    note = {"v": 1, "seq": 1, "prev": "0" * 64, "time": when, "action": "note"}
    write(path, seal(note) + tail)
    log = load(path)
    assert log.chain.seq == 2
    assert verify(path).problem == ""


@given(line=st.binary(max_size=300))
def test_no_line_is_taken_for_a_record_by_chance(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        unseal(line)


@pytest.mark.parametrize(
    "garbage", [b"garbage\n", b"\0\0\0\n", b"{}\n", b"[]\n", b"\n", b'{"hash":"0"}\n']
)
def test_garbage_in_the_middle_is_shown_and_hides_no_later_record(
    garbage: bytes, path: str
) -> None:
    lines = whole_log(path).splitlines(keepends=True)
    write(path, lines[0] + garbage + b"".join(lines[1:]))
    log = load(path)
    assert set(log.chain.open_intents) == {1, 2, 3}
    verified = verify(path)
    assert "line 2" in verified.problem
    assert verified.records == 1
    assert [record["seq"] for record in read_records(path)] == [1, 2, 3]


def test_a_log_that_is_all_garbage_is_gone_on_with_and_explained(path: str) -> None:
    whole_log(path)
    write(path, os.urandom(100).replace(b"\n", b"x"))
    assert load(path).chain.seq == 1
    assert verify(path).problem == ""
