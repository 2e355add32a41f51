# SPDX-License-Identifier: MIT
"""Reading the audit log that the real writer wrote: sound as it is, damaged by any change."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.audit import Intent, Result, digest, seal, unseal
from storewarden.audit_reading import log_files, read_records, verify
from storewarden.errors import (
    AuditUnavailableError,
    BadMessageError,
)
from storewarden.helper.audit import open_log
from storewarden.strict_json import canonical


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two removals, each with its result."""
    path = tmp_path / "log" / "audit.jsonl"
    with open_log(str(path)) as writer:
        for name in ("first", "second"):
            op = writer.append(Intent(name=name))
            writer.append(Result(op=op, name=name, status="removed"))
    return path


def change(log: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Edit the lines of a log."""
    log.write_bytes(b"".join(edit(log.read_bytes().splitlines(keepends=True))))


def test_what_was_written_is_sound(log: Path) -> None:
    found = verify(str(log))
    assert (found.files, found.records, found.problem, found.open_intents) == (
        (str(log),),
        4,
        "",
        0,
    )
    last = list(read_records(str(log)))[-1]
    assert found.head == last["hash"]
    assert [record["seq"] for record in read_records(str(log))] == [1, 2, 3, 4]


def test_an_intent_without_a_result_is_open(log: Path) -> None:
    with open_log(str(log)) as writer:
        writer.append(Intent(name="third"))
    assert verify(str(log)).open_intents == 1


@pytest.mark.parametrize(
    ("edit", "records"),
    [
        (lambda lines: [lines[0].replace(b"first", b"other"), *lines[1:]], 0),
        (lambda lines: [*lines[:1], *lines[2:]], 1),
        (lambda lines: lines[1:], 0),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 0),
        (lambda lines: [*lines, lines[-1]], 4),
        (lambda lines: [*lines[:2], b"rubbish\n", *lines[2:]], 2),
        (lambda lines: [*lines, b"rubbish\n"], 4),
        (lambda lines: [*lines[:3], lines[3][:20]], 3),
        (lambda lines: [*lines[:3], lines[3][:20] + b"\n"], 3),
        (lambda lines: [*lines[:2], b"\n", *lines[2:]], 2),
        (lambda lines: [*lines[:2], seal({"seq": 3, "prev": "0" * 64}), *lines[2:]], 2),
        (lambda lines: [*lines, seal({"seq": 5, "prev": "0" * 64, "action": "result"})], 4),
        (lambda lines: [b"\xff\xfe\n", b"\xff\xfe\n", *lines], 0),
    ],
)
def test_every_change_is_found_and_where(
    log: Path, edit: Callable[[list[bytes]], list[bytes]], records: int
) -> None:
    change(log, edit)
    found = verify(str(log))
    assert found.problem.startswith(f"{log} line ")
    assert found.records == records


def test_a_number_left_out_is_damage_though_the_chain_holds(log: Path) -> None:
    with open(log, "ab") as file:
        file.write(seal({"seq": 6, "prev": verify(str(log)).head, "action": "rotated"}))
    assert "record 6 does not follow record 4" in verify(str(log)).problem


def test_a_cut_off_end_shows_by_its_head_alone(log: Path) -> None:
    head = verify(str(log)).head
    change(log, lambda lines: lines[:2])
    cut = verify(str(log))
    assert (cut.problem, cut.records) == ("", 2)
    assert cut.head != head


@pytest.mark.parametrize("torn", [b'{"action":"int', b"\xff", b"{}", b"\0" * 512])
def test_a_torn_line_that_the_next_record_explains_is_sound(log: Path, torn: bytes) -> None:
    with open(log, "ab") as file:
        file.write(torn)
    assert verify(str(log)).problem
    with open_log(str(log)) as writer:
        writer.append(Intent(name="third"))
    found = verify(str(log))
    assert (found.problem, found.records) == ("", 6)
    assert [record["seq"] for record in read_records(str(log))] == [1, 2, 3, 4, 5, 6]


def test_a_torn_line_that_was_changed_afterwards_is_damage(log: Path) -> None:
    with open(log, "ab") as file:
        file.write(b"torn")
    with open_log(str(log)):
        pass
    assert verify(str(log)).problem == ""
    change(log, lambda lines: [line.replace(b"torn\n", b"worn\n") for line in lines])
    assert verify(str(log)).problem


def test_the_chain_goes_on_through_rotated_files(log: Path) -> None:
    os.rename(log, log.with_name("audit-0000000000000004.jsonl"))
    with open_log(str(log)) as writer:
        writer.append(Intent(name="third"))
    files = (str(log.with_name("audit-0000000000000004.jsonl")), str(log))
    assert log_files(str(log)) == files
    found = verify(str(log))
    assert (found.files, found.records, found.problem) == (files, 5, "")
    os.unlink(files[0])
    assert verify(str(log)).problem


def test_an_empty_log_is_sound(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").touch()
    found = verify(str(tmp_path / "audit.jsonl"))
    assert (found.records, found.problem, found.head) == (0, "", "0" * 64)


def test_no_log_means_that_nothing_was_removed(tmp_path: Path) -> None:
    for reader in (verify, lambda path: list(read_records(path))):
        with pytest.raises(AuditUnavailableError, match="nothing was recorded there yet"):
            reader(str(tmp_path / "absent.jsonl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every directory")
def test_a_log_in_a_directory_that_is_closed_is_not_told_to_be_absent(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o000)
    with pytest.raises(AuditUnavailableError, match="permission denied; try: sudo storewarden"):
        verify(str(closed / "audit.jsonl"))


def test_a_log_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(AuditUnavailableError, match="is a directory"):
        verify(str(tmp_path / "audit.jsonl"))


def test_a_name_with_wildcards_finds_only_its_own_files(tmp_path: Path) -> None:
    for name in ("a*.jsonl", "a*-1.jsonl", "ab-1.jsonl"):
        (tmp_path / name).touch()
    files = log_files(str(tmp_path / "a*.jsonl"))
    assert files == (str(tmp_path / "a*-1.jsonl"), str(tmp_path / "a*.jsonl"))


# A record is sealed by its hash, and there is one way to write it.


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.text().filter(lambda key: key != "hash"), json_values, max_size=5)


@given(records)
def test_a_sealed_record_opens_again(record: dict[str, object]) -> None:
    assert unseal(seal(record)) == {**record, "hash": digest(record)}


@given(records, st.data())
def test_any_changed_byte_breaks_the_seal(record: dict[str, object], data: st.DataObject) -> None:
    line = bytearray(seal(record).rstrip(b"\n"))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    try:
        opened = unseal(bytes(line))
    except BadMessageError:
        return
    # Only white space and other spellings of the same text may be read as the same record.
    assert opened == {**record, "hash": digest(record)}


@given(records)
def test_there_is_one_way_to_write_a_record(record: dict[str, object]) -> None:
    shuffled = dict(reversed(record.items()))
    assert canonical(shuffled) == canonical(record)
    assert canonical(record).isascii()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_record_has_a_number_that_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="float"):
        seal({"a": value})


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"hash":1}', b'{"a":1}', b"\xff"])
def test_a_line_without_its_hash_is_no_record(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        unseal(line)
