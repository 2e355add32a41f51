# SPDX-License-Identifier: MIT
"""A log that version 0.1.0 wrote: rotated, torn and mended, with removals that have no end yet."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from json_documents import checked_records
from storewarden.audit import Intent, Result, members_of, read
from storewarden.audit_reading import flaw, log_files, read_records, verify
from storewarden.claims import Claim
from storewarden.helper.audit import open_log
from storewarden.store.entries import FileId
from storewarden.strict_json import canonical

_WRITTEN = Path(__file__).parent / "logs" / "audit-of-0.1.0"


@pytest.fixture
def path(tmp_path: Path) -> str:
    shutil.copytree(_WRITTEN, tmp_path / "log")
    return str(tmp_path / "log" / "audit.jsonl")


def test_it_verifies(path: str) -> None:
    found = verify(path)
    assert (found.problem, found.records, found.open_intents) == ("", 10, 1)
    assert [os.path.basename(name) for name in found.files] == sorted(os.listdir(_WRITTEN))


def test_every_record_reads_as_what_it_is_and_back(path: str) -> None:
    for members in read_records(path):
        assert flaw(members) == ""
        again = json.loads(canonical(members_of(read(members))))
        differing = {name for name in members if members[name] != again.get(name)}
        assert differing <= {"v", "seq", "prev", "time", "hash"}, "the log adds its head itself"


def test_the_claims_that_it_names_are_called_so_still(path: str) -> None:
    intents = [one for one in map(read, read_records(path)) if isinstance(one, Intent)]
    named = {name for intent in intents for name in intent.absent}
    assert named
    assert named <= set(Claim)


def test_it_is_gone_on_with_and_what_it_left_open_is_known(path: str) -> None:
    before = verify(path)
    with open_log(path) as log:
        ((op, intent),) = log.chain.open_intents.items()
        assert (op, intent.private) == (5, "tmp-storewarden-3-0123456789ab")
        assert intent.file_id == FileId(64512, 4003)
        assert len(intent.locks) == 2
        ((half, partial),) = log.chain.partial.items()
        assert (half, partial.files, partial.directories, partial.bytes) == (3, 7, 2, 4096)
        assert log.append(Result(op=op, name=intent.name, status="removed")) == before.records + 1
    after = verify(path)
    assert (after.problem, after.open_intents) == ("", 0)
    *old, _ = read_records(path)
    assert old[-1]["hash"] == before.head


def test_what_it_left_open_goes_with_the_next_rotation(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storewarden.helper.audit.ROTATE_AT", 100)
    with open_log(path) as log:
        assert len(log_files(path)) == 3
        assert [*log.chain.open_intents, *log.chain.partial] == [5, 3]
    (rotated, *_) = [one for one in read_records(path) if one["action"] == "rotated"]
    *_, again = [one for one in read_records(path) if one["action"] == "rotated"]
    assert (again["open"], again["partial"]) == (rotated["open"], rotated["partial"])
    checked_records(list(read_records(path)))


def test_an_intent_without_what_was_not_yet_written_reads_as_well() -> None:
    head = {"v": 1, "seq": 1, "prev": "0" * 64, "time": "2026-01-01T00:00:00Z"}
    intent = read({**head, "action": "intent", "name": "x"})
    assert isinstance(intent, Intent)
    assert asdict(intent)["locks"] == ()
