# SPDX-License-Identifier: MIT
"""The audit log as people are shown it."""

import os
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from storewarden.audit_reading import Verification
from storewarden.cli.audit import record_line, verification_lines


@given(
    action=st.sampled_from(["intent", "result", "resumed", "recovered", "rotated"]) | st.text(),
    text=st.text() | st.binary().map(os.fsdecode),
)
def test_any_record_is_shown_in_one_safe_line(action: str, text: str) -> None:
    members = ("name", "status", "kind", "uid", "time", "deriver", "output", "torn_bytes")
    record: dict[str, object] = dict.fromkeys(members, text)
    line = record_line(
        {**record, "seq": 1, "action": action, "reasons": [text], "requester": {"via": text}}
    )
    assert line.isascii()
    assert line.isprintable()


def test_records_say_what_was_done_for_whom() -> None:
    who = {"uid": 1000, "pid": 5, "via": "socket"}
    common = {"v": 1, "seq": 7, "prev": "0" * 64, "time": "2026-01-01T00:00:00Z", "name": "abc"}
    intent = {**common, "action": "intent", "kind": "output", "uid": 30001, "requester": who}
    line = record_line({**intent, "deriver": "d.drv", "output": "out"})
    assert "to remove output abc of uid 30001, asked by uid 1000 socket" in line
    assert "output out of d.drv" in line
    result = {**common, "action": "result", "op": 6, "status": "removed", "files": 2, "bytes": 1024}
    assert "removed abc, 2 files, 1.0 KiB" in record_line(result)
    assert "interrupted removal was finished" in record_line({**result, "resumed": 1})
    torn = {**common, "action": "recovered", "torn_bytes": 5, "torn_sha256": "0" * 64}
    assert "5 torn bytes" in record_line(torn)


def test_a_verification_says_what_holds_or_what_is_damaged() -> None:
    sound = Verification(("a", "b"), 12, "f" * 64)
    assert list(verification_lines(sound)) == [
        "12 records in 2 files, all in order",
        "head " + "f" * 64,
    ]
    assert "1 removal begun and not ended" in "\n".join(
        verification_lines(replace(sound, open_intents=1))
    )
    damaged = list(verification_lines(replace(sound, problem="x line 3: \x1b")))
    assert damaged[0] == "DAMAGED: x line 3: \\x1b"
