# SPDX-License-Identifier: MIT

import os
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helper.child import beside, kill_self, kill_self_after, killed, traced
from helper.trees import descriptors
from json_documents import checked_records
from storewarden import host
from storewarden.audit import Intent, Other, Result, Rotated, seal, unseal
from storewarden.audit_reading import log_files, read_records, verify
from storewarden.errors import AuditUnavailableError, BadMessageError, StorewardenError
from storewarden.helper.audit import ROTATE_AT, AuditLog, open_log
from storewarden.store.entries import FileId

SESSION = """
import sys
from storewarden.audit import Other
from storewarden.helper.audit import open_log
with open_log(sys.argv[1]) as log:
    print("open", flush=True)
    sys.stdin.read()
    log.append(Other("note", {"who": "the other"}))
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "audit.jsonl")


def note(path: str, text: str = "") -> int:
    """Write one record, in a session of its own."""
    with open_log(path) as log:
        return log.append(Other("note", {"text": text}))


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
        order = traced(lambda: log.append(Other("note")), "write", host.sync.__name__, "append")
    assert order == ["write", host.sync.__name__, "append"]


def test_the_names_of_a_new_log_and_its_directory_are_on_disk_before_it_is_used(path: str) -> None:
    def session() -> None:
        with open_log(path):
            pass

    synced: list[set[FileId]] = []
    with beside(repeat(lambda: synced.append(opened())), "fsync", before=True):
        session()
    directory = os.path.dirname(path)
    names = [FileId.of(os.stat(place)) for place in (os.path.dirname(directory), directory)]
    assert [name in seen for name, seen in zip(names, synced, strict=True)] == [True, True]
    assert traced(session, "mkdir", "flock", "fsync", "load") == ["flock", "fsync", "load"]


def opened() -> set[FileId]:
    """The files and directories that this process has open."""
    found = set()
    for fd in descriptors():
        with suppress(OSError):  # it was that of the list itself
            found.add(FileId.of(os.fstat(int(fd))))
    return found


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
    written = threading.Event()

    def write() -> None:
        with open_log(path) as log:
            log.append(Other("note", {"who": "this one"}))
        written.set()

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        writer = threading.Thread(target=write)
        writer.start()
        assert not written.wait(0.3), "it did not wait for the other session"
        other.communicate()
        writer.join(60)
    assert [record["who"] for record in read_records(path)] == ["the other", "this one"]
    assert verify(path).problem == ""


@pytest.mark.slow
def test_a_session_that_waits_too_long_gives_up_and_leaves_nothing_open(path: str) -> None:
    with open_log(path):
        before = descriptors()
        with pytest.raises(AuditUnavailableError, match="at work for 30 s"):
            open_log(path).__enter__()
        assert descriptors() == before


@pytest.mark.parametrize("after", [[], ["the first of the new one"]])
def test_a_log_that_another_session_rotates_away_just_then_is_opened_anew(
    after: list[str], path: str
) -> None:
    note(path)

    def rotate() -> None:
        with open_log(path) as other:
            other.rotate()
        for text in after:
            note(path, text)

    with beside([rotate], "flock", before=True):
        assert note(path) == 3 + len(after)
    found = verify(path)
    assert (found.problem, found.records, len(found.files)) == ("", 3 + len(after), 2)


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


def test_a_reserve_that_leads_elsewhere_is_not_written_to_and_no_matter(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    write(f"{path}.target", b"precious")
    os.symlink(f"{path}.target", f"{path}.reserve")
    assert note(path) == 1
    with open(f"{path}.target", "rb") as file:
        assert file.read() == b"precious"


def test_no_descriptor_leaks(path: str) -> None:
    before = descriptors()
    grow(path)
    note(path)
    assert len(log_files(path)) == 2, "it was not rotated"
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(AuditUnavailableError), open_log(path):
        pytest.fail("a fifo was taken for a log")
    os.unlink(path)
    (rotated,) = log_files(path)
    write(rotated, b"no record\n")
    with pytest.raises(AuditUnavailableError, match="damaged at its end"), open_log(path):
        pytest.fail("a chain was begun anew")
    assert descriptors() == before


# A log that has grown long goes on in a new file, and so does its chain.


def grow(path: str) -> None:
    """Make the log so long that the next session rotates it."""
    note(path, "x" * ROTATE_AT)


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


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"open": [1], "partial": []}, "'open' is not what it should be"),
        ({"open": [{}], "partial": [{}]}, "'open' is not what it should be"),
        ({"open": [{"name": "x"}], "partial": []}, "an intent without a number of its own"),
        ({"seq": "2"}, "a record without a number"),
    ],
)
def test_a_rotated_file_with_an_odd_end_is_an_error_that_is_told(
    path: str, odd: dict[str, object], why: str
) -> None:
    note(path)
    with open_log(path) as log:
        last = {"v": 1, "seq": 2, "prev": log.chain.last, "time": "", "action": "rotated"}
    with open(path, "ab") as file:
        file.write(seal({**last, **odd}))
    os.rename(path, f"{path.removesuffix('.jsonl')}-{2:016d}.jsonl")
    with pytest.raises(StorewardenError, match=f"damaged at its end: {why}"):
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
        kill_self_after(1, host.sync.__name__)
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


# What a crash leaves of a record is mended and explained.


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


# Crashes that meet the traces of an earlier one.


def test_a_first_record_torn_after_a_rotation_does_not_begin_the_chain_anew(path: str) -> None:
    grow(path)
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
    grow(path)
    note(path)
    rotated, _ = log_files(path)
    os.truncate(rotated, 0)
    os.unlink(path)
    with pytest.raises(AuditUnavailableError, match="damaged at its end"):
        note(path)
