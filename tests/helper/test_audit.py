# SPDX-License-Identifier: MIT
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from helper.child import traced
from helper.trees import descriptors
from storewarden.audit import Intent, Other, Result
from storewarden.audit_reading import read_records, verify
from storewarden.errors import AuditUnavailableError
from storewarden.helper.audit import open_log

SESSION = """
import sys, time
from storewarden.audit import Other
from storewarden.helper.audit import open_log
with open_log(sys.argv[1]) as log:
    print("open", flush=True)
    time.sleep(0.3)
    log.append(Other("note", {"who": "the other"}))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "audit.jsonl")


def test_a_new_log_is_its_owners_alone(path: str) -> None:
    with open_log(path) as log:
        assert log.append(Other("note")) == 1
    assert os.stat(path).st_mode & 0o7137 == 0
    assert os.stat(os.path.dirname(path)).st_mode & 0o7027 == 0
    assert os.stat(path).st_uid == os.geteuid()


def test_records_are_numbered_and_chained_through_sessions(path: str) -> None:
    for session in range(3):
        with open_log(path) as log:
            assert log.append(Other("note", {"session": session})) == 2 * session + 1
            assert log.append(Other("note", {"session": session})) == 2 * session + 2
    records = list(read_records(path))
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[0]["prev"] == "0" * 64
    assert [r["prev"] for r in records[1:]] == [r["hash"] for r in records[:-1]]
    verified = verify(path)
    assert (verified.records, verified.problem) == (6, "")
    assert verified.head == records[-1]["hash"]


def test_a_record_is_on_disk_before_append_returns(path: str) -> None:
    with open_log(path) as log:
        order = traced(lambda: log.append(Other("note")), "write", "fdatasync", "fsync", "append")
    assert [name.removeprefix("fdata").removeprefix("f") for name in order] == [
        "write",
        "sync",
        "append",
    ]


def test_no_member_can_forge_what_the_log_itself_says(path: str) -> None:
    with open_log(path) as log:
        forged = {"v": 9, "seq": 9, "prev": "9", "time": "9", "text": 'x"}\n{"seq":2'}
        log.append(Other("note", forged))
    assert verify(path).problem == ""
    (record,) = read_records(path)
    assert (record["v"], record["seq"], record["prev"]) == (1, 1, "0" * 64)
    assert str(record["time"]).endswith("Z")


def test_an_intent_is_open_until_its_result(path: str) -> None:
    with open_log(path) as log:
        first, second = log.append(Intent(name="a")), log.append(Intent(name="b"))
        log.append(Result(op=first, status="removed"))
        assert set(log.chain.open_intents) == {second}
    assert verify(path).open_intents == 1
    with open_log(path) as log:
        assert [intent.name for intent in log.chain.open_intents.values()] == ["b"]
        log.append(Result(op=second, status="removed"))
        assert not log.chain.open_intents
    assert verify(path).open_intents == 0


def test_two_sessions_exclude_each_other(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o750)
    command = [sys.executable, "-c", SESSION, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with open_log(path) as log:
            log.append(Other("note", {"who": "this one"}))
    assert [record["who"] for record in read_records(path)] == ["the other", "this one"]
    assert verify(path).problem == ""


@pytest.mark.slow
def test_a_session_that_waits_too_long_gives_up(path: str) -> None:
    with open_log(path), pytest.raises(AuditUnavailableError, match="at work for 30 s"):
        open_log(path).__enter__()


@pytest.mark.parametrize("dangling", [True, False])
def test_a_symbolic_link_is_no_log(path: str, *, dangling: bool) -> None:
    os.mkdir(os.path.dirname(path))
    target = f"{os.path.dirname(path)}/target"
    if not dangling:
        with open(target, "w", encoding="ascii"):
            pass
    os.symlink(target, path)
    with pytest.raises(AuditUnavailableError, match="symbolic link"), open_log(path):
        pytest.fail("a symbolic link was followed")
    assert os.path.exists(target) is not dangling
    assert dangling or os.stat(target).st_size == 0


def test_what_is_no_file_is_no_log(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    os.mkfifo(path)
    with pytest.raises(AuditUnavailableError, match="not a file"), open_log(path):
        pytest.fail("a fifo was taken for a log")
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises(AuditUnavailableError, match="is a directory"), open_log(path):
        pytest.fail("a directory was taken for a log")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_no_log(path: str) -> None:
    with open_log(path):
        pass
    os.chown(path, 65534, 65534)
    with pytest.raises(AuditUnavailableError, match="not a file of this user"), open_log(path):
        pytest.fail("another user's file was taken for a log")


def test_without_a_place_for_it_there_is_no_log(path: str) -> None:
    nowhere = f"{os.path.dirname(path)}/nowhere/audit.jsonl"
    with pytest.raises(AuditUnavailableError, match="no such file or directory"), open_log(nowhere):
        pytest.fail("a log without a directory")


def test_the_reserve_is_really_set_aside(path: str) -> None:
    with open_log(path):
        found = os.lstat(f"{path}.reserve")
    assert stat.S_ISREG(found.st_mode)
    assert found.st_size == 64 * 1024
    assert found.st_blocks * 512 >= 64 * 1024


def test_no_descriptor_leaks(path: str) -> None:
    before = descriptors()
    with open_log(path) as log:
        log.append(Other("note"))
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(AuditUnavailableError), open_log(path):
        pytest.fail("a fifo was taken for a log")
    assert descriptors() == before
