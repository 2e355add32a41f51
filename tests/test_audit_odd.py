# SPDX-License-Identifier: MIT
"""Records that are whole and well chained, and yet none that this program writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import PROGRAM, run
from storewarden.audit import Intent, Result, seal
from storewarden.audit_reading import flaw, read_records, verify
from storewarden.cli.audit import record_line
from storewarden.helper.audit import open_log

INTENT = {"action": "intent", "name": "third", "kind": "output", "uid": 30001}
RESULT = {"action": "result", "op": 1, "name": "first", "status": "removed"}
ODD: list[tuple[dict[str, Any], str]] = [
    ({**RESULT, "op": []}, "'op' is not"),
    ({**RESULT, "op": {"a": 1}}, "'op' is not"),
    ({**RESULT, "op": "1"}, "'op' is not"),
    ({**RESULT, "op": True}, "'op' is not"),
    ({**RESULT, "op": None}, "'op' is not"),
    ({"action": "result", "name": "first", "status": "removed"}, "'op' is missing"),
    ({"action": "result", "op": 1, "name": "first"}, "'status' is missing"),
    ({**RESULT, "status": 3}, "'status' is not"),
    ({**RESULT, "files": "many"}, "'files' is not"),
    ({**RESULT, "files": 1, "bytes": None}, "'bytes' is not"),
    ({**RESULT, "files": 1, "bytes": 10**400}, "'bytes' is not"),
    ({**RESULT, "files": -1}, "'files' is not"),
    ({**RESULT, "reasons": "none"}, "'reasons' is not"),
    ({**RESULT, "reasons": [1]}, "'reasons' is not"),
    ({"action": "intent", "kind": "output", "uid": 1}, "'name' is missing"),
    ({**INTENT, "name": ["third"]}, "'name' is not"),
    ({**INTENT, "uid": None}, "'uid' is not"),
    ({**INTENT, "requester": "root"}, "'requester' is not"),
    ({**INTENT, "requester": {"uid": [], "via": ""}}, "'requester' is not"),
    ({**INTENT, "ctime": "now"}, "'ctime' is not"),
    ({"action": None}, "'action' is not"),
    ({"action": ["intent"]}, "'action' is not"),
    ({"action": {}, "name": "x"}, "'action' is not"),
    ({}, "'action' is missing"),
    ({"action": "rotated", "time": None}, "'time' is not"),
    ({"action": "rotated", "v": "1"}, "'v' is not"),
    ({"action": "recovered", "torn_bytes": 5}, "'torn_sha256' is missing"),
    ({"action": "resumed", "status": "removed"}, "'name' is missing"),
    ({"action": "note", "deep": json.loads("[" * 400 + "]" * 400)}, "nested deeper"),
    ({"action": "note", "deep": json.loads('{"a":' * 9 + "1" + "}" * 9)}, "nested deeper"),
    ({"action": "note", "deep": json.loads("[" * 800 + "]" * 800)}, "nested deeper"),
    (
        {"action": "rotated", "open": [INTENT], "partial": []},
        "an intent without a number of its own",
    ),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with a removal and its result."""
    path = tmp_path / "log" / "audit.jsonl"
    with open_log(str(path)) as writer:
        op = writer.append(Intent(name="first"))
        writer.append(Result(op=op, name="first", status="removed"))
    return path


def add(log: Path, members: dict[str, Any]) -> None:
    """Write that as the next record, sealed and chained as it should be."""
    before = verify(str(log))
    chained = {
        "v": 1,
        "seq": before.records + 1,
        "prev": before.head,
        "time": "2026-01-01T00:00:00Z",
    }
    with open(log, "ab") as file:
        file.write(seal({**chained, **members}))


@pytest.mark.parametrize(("members", "why"), ODD, ids=[why for _, why in ODD])
def test_verify_says_where_it_is_and_what_is_wrong_with_it(
    log: Path, members: dict[str, Any], why: str
) -> None:
    add(log, members)
    found = verify(str(log))
    assert found.problem.startswith(f"{log} line 3: ")
    assert why in found.problem
    assert found.records == 2


@pytest.mark.slow
@pytest.mark.parametrize(("members", "why"), ODD[::4], ids=[why for _, why in ODD[::4]])
def test_no_command_ends_in_a_traceback_but_both_with_1(
    log: Path, members: dict[str, Any], why: str
) -> None:
    add(log, members)
    options = ["--config", "/dev/null", "--audit-log", str(log)]
    verified = run([*PROGRAM, "audit", "verify", *options])
    assert (verified.returncode, verified.stderr) == (1, "")
    assert why in verified.stdout
    document = json.loads(run([*PROGRAM, "audit", "verify", "--json", *options]).stdout)
    assert (document["sound"], document["records"]) == (False, 2)
    shown = run([*PROGRAM, "audit", "show", *options])
    as_json = run([*PROGRAM, "audit", "show", "--json", *options])
    assert json.loads(as_json.stdout)["records"][:2] == list(read_records(str(log)))[:2]
    if "nested" in why:  # not a whole record: as every other of these it is left to verify
        assert (shown.returncode, as_json.returncode) == (0, 0)
        assert len(shown.stdout.splitlines()) == 2
    else:
        assert (shown.returncode, as_json.returncode) == (1, 1)
        assert why in shown.stdout.splitlines()[2]
        assert "not as storewarden writes them: 1 of 3 records" in shown.stderr


def test_what_a_reader_can_do_without_may_be_missing(log: Path) -> None:
    for members in ({"action": "intent", "name": "x"}, {**RESULT, "op": 3, "files": 2}):
        add(log, members)
    add(log, {"action": "intent", "name": "y", "deriver": "d.drv"})
    add(log, {"action": "of-a-version-to-come", "name": "z", "new": {"a": [1, "b"]}})
    assert verify(str(log)).problem == ""
    lines = [record_line(record) for record in read_records(str(log))]
    assert "to remove an entry x" in lines[2]
    assert "removed first" in lines[3]
    assert "output unknown of d.drv" in lines[4]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=9,
)
_MEMBERS = ("action", "name", "kind", "uid", "requester", "deriver", "output", "op", "status")
_MORE = ("files", "bytes", "reasons", "resumed", "torn_bytes", "torn_sha256", "time", "v", "locks")


@given(
    st.dictionaries(st.sampled_from([*_MEMBERS, *_MORE]), _JSON),
    st.sampled_from(["intent", "result", "resumed", "recovered", "rotated", ""]),
)
def test_any_record_is_judged_and_shown_in_one_safe_line(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, Any], action: str
) -> None:
    log = tmp_path_factory.mktemp("log") / "audit.jsonl"
    log.touch()
    add(log, {**members, **({"action": action} if action else {})})
    found = verify(str(log))
    records = list(read_records(str(log)))
    assert bool(found.problem) is (not records or bool(flaw(records[0])))
    for record in records:
        line = record_line(record)
        assert line.isascii()
        assert line.isprintable()
