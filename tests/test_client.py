# SPDX-License-Identifier: MIT
"""From findings to requests, and through a real socket to a stand-in for the helper."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from storewarden.claims import Judgement, Verdict
from storewarden.client import MAX_REPLY, HelperUnavailableError, remove_through, requests_for
from storewarden.errors import BadMessageError, StoreUnreadableError
from storewarden.protocol import (
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
    assert 0.5 < waited[2] - waited[1] < 5


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
