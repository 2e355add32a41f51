# SPDX-License-Identifier: MIT
"""From findings to requests, and through a real socket to a stand-in for the helper."""

import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.claims import Judgement, Verdict
from storewarden.client import (
    MAX_REPLY,
    HelperUnavailableError,
    batches,
    decode_reply,
    encode_request,
    remove_through,
    request_for,
    requests_for,
)
from storewarden.errors import BadMessageError, StoreUnreadableError, UnavailableError
from storewarden.protocol import (
    MAX_BATCH,
    MAX_REQUEST,
    EndCode,
    Outcome,
    RemoveRequest,
    Status,
    decode_request,
    encode_end,
    encode_outcome,
)
from storewarden.scan import Finding
from storewarden.store.entries import Entry, EntryKind, FileId
from storewarden.store.floating import NIX32

NAMES = [f"{number:032d}-x" for number in range(40)]
ENTRY = Entry(NAMES[0], FileId(1, 2), 0o40755, 2, 30001, 30000, 4096, 8, 100.0)
REMOVED = Outcome(NAMES[0], Status.REMOVED, files=3)


def finding(number: int, kind: EntryKind, verdict: Verdict) -> Finding:
    """A finding of that kind and verdict."""
    entry = replace(ENTRY, base_name=NAMES[number], file_id=FileId(1, number))
    return Finding(NAMES[number], kind, Judgement(verdict, ("because",)), entry)


def request(number: int = 0) -> RemoveRequest:
    """A request for one entry."""
    return RemoveRequest(NAMES[number], EntryKind.OUTPUT, FileId(1, number))


def test_all_that_nothing_claims_is_asked_for_and_locks_come_last() -> None:
    findings = [
        finding(0, EntryKind.LOCK, Verdict.REMOVABLE),
        finding(1, EntryKind.OUTPUT, Verdict.CANDIDATE),
        finding(2, EntryKind.OUTPUT, Verdict.KEEP),
        finding(3, EntryKind.LOCK, Verdict.KEEP),
        finding(4, EntryKind.CHROOT, Verdict.KEEP),
        finding(5, EntryKind.OUTPUT, Verdict.REMOVABLE),
        Finding(NAMES[6], EntryKind.MISSING, Judgement(Verdict.REMOVABLE, ())),
        finding(7, EntryKind.CHROOT, Verdict.REMOVABLE),
    ]
    wanted = requests_for(findings)
    assert [(r.base_name, r.kind, *r.file_id) for r in wanted] == [
        (NAMES[1], EntryKind.OUTPUT, 1, 1),
        (NAMES[5], EntryKind.OUTPUT, 1, 5),
        (NAMES[0], EntryKind.LOCK, 1, 0),
    ]
    (chroot,) = requests_for(findings, {EntryKind.CHROOT})
    assert (chroot.base_name, chroot.kind) == (NAMES[7], EntryKind.CHROOT)


@contextmanager
def helper(
    directory: Path, answer: Callable[[bytes], bytes], connections: int = 1
) -> Iterator[str]:
    """One that gives `answer` to the one line of each connection, then closes."""
    path = f"{directory}/helper.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            for _ in range(connections):
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as lines:
                    connection.sendall(answer(lines.readline()))

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield path
        finally:
            server.join(10)


def outcomes_of(directory: Path, reply: bytes) -> list[Outcome]:
    """What the caller learns from that reply."""
    with helper(directory, lambda _: reply) as path:
        return list(remove_through(path)([request()]))


def test_the_helper_is_asked_in_one_line_and_its_outcomes_come_back(tmp_path: Path) -> None:
    with helper(tmp_path, removed) as path:
        done = list(remove_through(path)([request(1), request(2)]))
    assert [(o.base_name, o.status) for o in done] == [
        (NAMES[1], Status.REMOVED),
        (NAMES[2], Status.REMOVED),
    ]


def removed(line: bytes) -> bytes:
    """The answer of a helper that does all that it is asked for."""
    names = [each.base_name for each in decode_request(line)]
    outcomes = [encode_outcome(Outcome(name, Status.REMOVED)) for name in names]
    return b"".join(outcomes) + encode_end()


def test_it_stops_between_two_batches_and_never_within_one(tmp_path: Path) -> None:
    asked: list[int] = []

    def answer(line: bytes) -> bytes:
        asked.append(len(decode_request(line)))
        return removed(line)

    wanted = tuple(map(request, range(40)))
    with helper(tmp_path, answer, connections=2) as path:
        remove = remove_through(path, stopped=lambda: len(asked) == 2)
        assert [outcome.base_name for outcome in remove(wanted)] == NAMES[:32]
    assert asked == [16, 16]


def test_a_request_for_nothing_is_sent_also_where_nothing_more_is_wanted(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def answer(line: bytes) -> bytes:
        asked.append(line)
        return removed(line)

    with helper(tmp_path, answer) as path:
        assert list(remove_through(path, stopped=lambda: True)(())) == []
    assert [decode_request(line) for line in asked] == [()]


def test_each_outcome_is_given_as_it_comes(tmp_path: Path) -> None:
    go_on = threading.Event()
    path = f"{tmp_path}/helper.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(encode_outcome(REMOVED))
                assert go_on.wait(10)
                connection.sendall(encode_end())

        server = threading.Thread(target=serve)
        server.start()
        outcomes = remove_through(path)([request()])
        assert next(outcomes) == REMOVED
        go_on.set()
        assert list(outcomes) == []
        server.join(10)


def test_whoever_waits_for_the_helper_can_give_signs_of_life_and_leave(tmp_path: Path) -> None:
    path = f"{tmp_path}/helper.sock"
    waited: list[float] = []

    def waiting() -> None:
        waited.append(time.monotonic())
        if len(waited) == 3:
            raise LookupError

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(LookupError):
            list(remove_through(path, waiting)([request()]))
    assert 0.5 < waited[2] - waited[1] < 60


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        encode_outcome(REMOVED),
        encode_outcome(REMOVED)[:-1],
        encode_end()[:-1],
        b"x" * (2 * MAX_REPLY),
    ],
)
def test_a_reply_that_breaks_off_is_an_error_and_no_success(tmp_path: Path, reply: bytes) -> None:
    with pytest.raises(HelperUnavailableError, match="ended before its answer did"):
        outcomes_of(tmp_path, reply)


def test_who_may_not_ask_is_told_so(tmp_path: Path) -> None:
    end = encode_end("uid 7 may not ask this helper", EndCode.NOT_ALLOWED)
    with pytest.raises(HelperUnavailableError, match="uid 7 may not ask"):
        outcomes_of(tmp_path, end)


def test_a_broken_world_of_the_helpers_is_told_as_such(tmp_path: Path) -> None:
    end = encode_end("the database stayed locked", EndCode.UNREADABLE)
    with pytest.raises(StoreUnreadableError, match="stayed locked"):
        outcomes_of(tmp_path, encode_outcome(REMOVED) + end)


@pytest.mark.parametrize("reply", [b"hello\n", b"{}\n", b'{"v":2,"end":true,"error":""}\n', b"\n"])
def test_another_language_is_refused(tmp_path: Path, reply: bytes) -> None:
    with pytest.raises(BadMessageError):
        outcomes_of(tmp_path, reply)


def test_without_a_helper_the_way_without_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(f"{tmp_path}/gone.sock")
    for name in ("absent.sock", "gone.sock", "file", "x" * 200):
        with pytest.raises(HelperUnavailableError, match=r"sudo storewarden scan --yes$"):
            list(remove_through(f"{tmp_path}/{name}")([request()]))
        with pytest.raises(HelperUnavailableError, match=r"any sandbox: by hand$"):
            list(remove_through(f"{tmp_path}/{name}", by_root="by hand")([request()]))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
def test_a_socket_without_permission_is_told_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/helper.sock")
        listener.listen()
        os.chmod(f"{tmp_path}/helper.sock", 0)
        with pytest.raises(HelperUnavailableError, match="permission denied"):
            list(remove_through(f"{tmp_path}/helper.sock")([request()]))


# Requests and outcomes as lines: what one side writes the other reads, and batches fit.


HASH = "0c" * 16
numbers = st.integers(0, 2**64 - 1)
requests = st.builds(
    RemoveRequest,
    st.builds(
        "{}-{}".format,
        st.text(NIX32, min_size=32, max_size=32),
        st.from_regex(r"[a-zA-Z0-9+_?=][a-zA-Z0-9+_?=.-]{0,210}", fullmatch=True),
    ),
    st.sampled_from(EntryKind),
    st.builds(FileId, numbers, numbers),
)
many_requests = st.lists(requests, unique_by=lambda r: r.base_name, max_size=40).map(tuple)
outcomes = st.builds(
    Outcome,
    st.text(),
    st.sampled_from(Status),
    st.lists(st.text(), max_size=3).map(tuple),
    st.booleans(),
    numbers,
    numbers,
    numbers,
)


@given(many_requests)
def test_batches_keep_all_in_order_and_each_fits_into_a_line(
    wanted: tuple[RemoveRequest, ...],
) -> None:
    groups = batches(wanted)
    assert tuple(request for group in groups for request in group) == wanted
    for group in groups:
        line = encode_request(group)
        assert 0 < len(group) <= MAX_BATCH
        assert len(line) <= MAX_REQUEST
        assert decode_request(line) == group
        assert decode_request(line.rstrip(b"\n")) == group


def test_no_batch_is_smaller_than_it_must_be() -> None:
    small = tuple(RemoveRequest(f"{n:032d}-x", EntryKind.LOCK, FileId(0, 0)) for n in range(33))
    assert [len(group) for group in batches(small)] == [16, 16, 1]
    name = "a" * 211
    large = tuple(
        RemoveRequest(f"{n:032d}-{name}", EntryKind.OUTPUT_OF_ROOT, FileId(2**64 - 1, 2**64 - 1))
        for n in range(40)
    )
    groups = batches(large)
    assert sum(map(len, groups)) == 40
    for group, after in itertools.pairwise(groups):
        assert len(encode_request((*group, after[0]))) > MAX_REQUEST


def test_no_requests_make_no_batch() -> None:
    assert batches(()) == ()


def test_a_request_says_what_the_entry_looked_like_and_no_more() -> None:
    entry = Entry(f"{HASH}-a", FileId(5, 6), 0o40755, 2, 30001, 30000, 4096, 8, 1.5)
    request = request_for(entry, EntryKind.OUTPUT)
    assert json.loads(encode_request((request,))) == {
        "v": 1,
        "op": "remove",
        "entries": [{"name": f"{HASH}-a", "kind": "output", "device": 5, "inode": 6}],
    }


@given(outcomes)
def test_an_outcome_arrives_as_it_was_sent(outcome: Outcome) -> None:
    line = encode_outcome(outcome)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode_reply(line) == outcome


ERRORS = {
    EndCode.NOT_ALLOWED: HelperUnavailableError,
    EndCode.UNAVAILABLE: UnavailableError,
    EndCode.UNREADABLE: StoreUnreadableError,
    None: HelperUnavailableError,
}
"""What each end is to a client; the last is that of an older helper, which gives no code."""
OLDER = (
    "; that helper is of an older storewarden than this program: storewarden status says what to do"
)


@given(st.text(min_size=1), st.sampled_from([*EndCode, None]))
def test_the_end_arrives_as_its_error_with_its_words(error: str, code: EndCode | None) -> None:
    came = decode_reply(encode_end(error, code))
    assert type(came) is ERRORS[code]
    assert str(came) == error + ("" if code else OLDER)


def test_an_end_without_an_error_arrives_as_none_and_as_it_always_was() -> None:
    assert encode_end() == b'{"end":true,"error":"","v":1}\n'
    assert decode_reply(encode_end()) is None


@pytest.mark.parametrize("code", [b'"of-a-later-version"', b"7", b"[]"])
def test_an_end_with_a_code_that_nobody_knows_is_an_error_all_the_same(code: bytes) -> None:
    came = decode_reply(b'{"v":1,"end":true,"error":"why","code":%s}\n' % code)
    assert type(came) is StoreUnreadableError


def test_a_client_of_before_there_were_codes_reads_an_end_with_one() -> None:
    match json.loads(encode_end("why", EndCode.UNAVAILABLE)):
        case {"end": True, "error": str(error), "v": 1}:  # all that it looked at
            assert error == "why"
        case other:
            pytest.fail(f"{other} is no end to it")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'{"v":2,"end":true,"error":""}',
        b'{"end":true,"error":""}',
        b'{"v":1,"end":1,"error":""}',
        b'{"v":1,"end":true,"error":null}',
        b'{"v":1,"end":true}',
        b'{"v":1}',
        b'{"v":1,"status":"removed"}',
        b'{"v":1,"status":"removed","reasons":[]}',
        b'{"v":1,"base_name":"a","status":"gone","reasons":[]}',
        b'{"v":1,"base_name":"a","status":[],"reasons":[]}',
        b'{"v":1,"base_name":"a","status":"removed","reasons":"a"}',
        b'{"v":1,"base_name":"a","status":"removed","reasons":[],"more":1}',
        b'{"v":1,"base_name":"a","status":"removed","reasons":[],"status":"kept"}',
        b'{"v":1,"base_name":"a","status":"removed","reasons":[],"files":1.5}',
    ],
)
def test_a_reply_that_is_not_understood_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode_reply(line)
