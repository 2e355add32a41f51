# SPDX-License-Identifier: MIT
"""The audit log as people are shown it."""

import os
import re
import signal
import subprocess
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from command import PROGRAM, Desk, report, run, strand_lock
from storewarden.audit_reading import Verification, removals
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


def records_of(desk: Desk) -> list[str]:
    """Five lock files, removed one after the other; their names."""
    names = [strand_lock(desk.place, f"many-{number}") for number in range(5)]
    assert run(desk.scan("--yes")).returncode == 0
    return names


def log_of(desk: Desk, *words: str) -> list[str]:
    options = ["--config", os.devnull, "--audit-log", desk.audit_log]
    return [*PROGRAM, "audit", "log", *options, *words]


def test_a_log_has_a_line_for_each_removal_newest_first(desk: Desk) -> None:
    names = set(records_of(desk))
    lines = run(log_of(desk)).stdout.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert re.match(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+  removed \S+ \(1 file, 0 B\), asked by", line
        )
    assert {line.split("removed ")[1].split()[0] for line in lines} == names
    told = report(run(log_of(desk, "--json")))["removals"]
    assert [one["seq"] for one in told] == [10, 8, 6, 4, 2]
    assert [one["path"].rpartition("/")[2] in line for one, line in zip(told, lines, strict=True)]
    assert all(one["time"].endswith("Z") for one in told)


def test_a_log_can_be_cut_to_what_somebody_wants_to_know(desk: Desk) -> None:
    names = records_of(desk)
    two = run(log_of(desk, "-n", "2")).stdout.splitlines()
    assert (len(two), two[-1]) == (3, "... 3 earlier: --all")
    assert len(run(log_of(desk, "--since", "1h")).stdout.splitlines()) == 5
    assert len(run(log_of(desk, "--since", "2020-02-03")).stdout.splitlines()) == 5
    later = run(log_of(desk, "--since", "2999-01-01"))
    assert (later.returncode, later.stdout) == (0, "")
    assert "tells of no removal" in later.stderr
    one = run(log_of(desk, f"{desk.place.path(names[3])}/below")).stdout
    assert one.count(names[3]) == 1
    assert not [name for name in names if name in one and name != names[3]]
    assert "known to be absent: " in one
    for wrong in (("--since", "soon"), ("-n", "-1"), ("-n", "some")):
        assert run(log_of(desk, *wrong)).returncode == 2


def test_a_log_that_is_followed_shows_what_comes(desk: Desk) -> None:
    records_of(desk)
    command = log_of(desk, "--follow", "-n", "1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"removed " in child.stdout.readline()
        name = strand_lock(desk.place, "later")
        assert run(desk.scan("--yes")).returncode == 0
        assert name.encode() in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
        assert child.stderr is not None
        assert child.stderr.read() == b""


def test_where_nothing_was_recorded_yet_that_is_said_and_is_well(desk: Desk) -> None:
    done = run(log_of(desk))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"storewarden: {desk.audit_log} tells of no removal\n"
    assert report(run(log_of(desk, "--json")))["removals"] == []


def test_a_removal_that_was_begun_and_one_that_was_finished_later_are_told_once() -> None:
    common = {"v": 1, "prev": "0" * 64, "time": "2026-01-01T00:00:00Z"}
    intent = {**common, "action": "intent", "seq": 1, "name": "abc", "kind": "output"}
    (begun,) = removals([intent])
    assert (begun.name, begun.status, begun.kind) == ("abc", "begun", "output")
    ended = {**common, "action": "result", "seq": 2, "op": 1, "status": "removed", "resumed": 1}
    (one,) = removals([intent, ended])
    assert (one.name, one.status, one.kind, one.seq) == ("abc", "removed", "output", 2)
    found = {**common, "action": "resumed", "seq": 3, "name": "x", "status": "removed"}
    assert [one.name for one in removals([intent, ended, found, {"action": "?"}])] == ["abc", "x"]


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
