# SPDX-License-Identifier: MIT
"""What comes over the wire is refused whole unless it is exactly one request."""

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator

import pytest

from helper.bench import log_of, names, request
from helper.serving import CLIENT, Helper, line_for, serving, stale_lock
from storewarden.protocol import MAX_REQUEST
from storewarden.throwaway import ThrowawayStore
from sweeps import own_place

NAME = f"{'0' * 32}-x.lock"
ENTRY = {"name": NAME, "kind": "lock", "device": 1, "inode": 1}
GOOD = {"v": 1, "op": "remove", "entries": [ENTRY]}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def with_entry(**members: object) -> bytes:
    return line({**GOOD, "entries": [{**ENTRY, **members}]})


BAD = {
    "nothing": b"",
    "an empty line": b"\n",
    "no newline": line(GOOD)[:-1],
    "half a line": line(GOOD)[:30],
    "two lines": line(GOOD) * 2,
    "a line and more": line(GOOD) + b" ",
    "garbage": b"\xff\xfe\0garbage\n",
    "another encoding": json.dumps(GOOD).encode("utf-16") + b"\n",
    "a byte order mark": b"\xef\xbb\xbf" + line(GOOD),
    "no object": line([GOOD]),
    "deep nesting": b"[" * 4000 + b"\n",
    "a huge number": b'{"v":' + b"1" * 4000 + b"}\n",
    "a key twice": line(GOOD)[:-2] + b',"op":"remove"}\n',
    "a key twice in an entry": line(GOOD).replace(b'"kind"', b'"name":"x","kind"'),
    "an unknown key": line({**GOOD, "force": True}),
    "a missing key": line({"v": 1, "op": "remove"}),
    "another version": line({**GOOD, "v": 2}),
    "a version that is true": line({**GOOD, "v": True}),
    "another operation": line({**GOOD, "op": "purge"}),
    "too many entries": line({**GOOD, "entries": [{"name": str(n)} for n in range(17)]}),
    "an entry twice": line({**GOOD, "entries": [ENTRY, ENTRY]}),
    "a path": with_entry(name=f"/nix/store/{NAME}"),
    "a way out": with_entry(name=f"../{NAME}"),
    "the links": with_entry(name=".links"),
    "a private directory": with_entry(name="tmp-storewarden-1-0"),
    "a newline in the name": with_entry(name=f"{NAME}\n"),
    "a zero in the name": with_entry(name=f"{NAME}\0"),
    "a name that is no text": with_entry(name=["x"]),
    "a kind that is none": with_entry(kind="everything"),
    "a fraction": with_entry(inode=1.0),
    "not a number": line(GOOD).replace(b'"inode": 1', b'"inode": NaN'),
    "a negative number": with_entry(inode=-1),
    "a number too large": with_entry(inode=2**64),
    "a truth": with_entry(inode=True),
    "too long by one": line(GOOD)[:-1] + b" " * (MAX_REQUEST - len(line(GOOD)) + 1) + b"\n",
    "far too long": b"x" * 1_000_000,
}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ThrowawayStore, Helper]]:
    """One helper for all bad requests, as in life."""
    with tempfile.TemporaryDirectory(prefix="sw-") as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - clients are other users
        place = own_place(directory)
        place.add_valid("valid")
        os.mkdir(f"{directory}/log", 0o700)
        with serving(place) as helper:
            yield place, helper


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_not_one_request_is_refused(
    data: bytes, served: tuple[ThrowawayStore, Helper]
) -> None:
    place, helper = served
    before = names(place)
    (end,) = helper.ask(data)
    assert end["end"]
    assert end["error"]
    assert names(place) == before
    assert not os.path.exists(log_of(place))


def test_what_the_bad_ones_are_made_from_is_good(near: ThrowawayStore) -> None:
    with serving(near) as helper:
        assert helper.ask(line(GOOD))[-1] == {"v": 1, "end": True, "error": ""}


def test_a_request_for_nothing_is_taken_and_removes_nothing(near: ThrowawayStore) -> None:
    stale_lock(near)
    before = names(near)
    with serving(near) as helper:
        assert helper.ask(line({**GOOD, "entries": []})) == [{"v": 1, "end": True, "error": ""}]
    assert names(near) == before


def test_the_longest_request_is_taken(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    asked = line_for(near, lock)
    padded = asked[:-1] + b" " * (MAX_REQUEST - len(asked)) + b"\n"
    assert len(padded) == MAX_REQUEST
    with serving(near) as helper:
        assert helper.ask(padded)[0]["status"] == "removed"


def test_a_request_may_come_in_pieces(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    asked = line_for(near, lock)
    with (
        serving(near, allow=(CLIENT, os.geteuid())) as helper,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.connect(helper.socket)
        for place in range(0, len(asked), 40):
            connection.sendall(asked[place : place + 40])
            time.sleep(0.01)
        assert b'"removed"' in connection.makefile("rb").readline()


def test_a_request_for_another_inode_is_answered_and_refused(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    inode = request(near, lock).file_id.inode
    asked = line_for(near, lock).replace(str(inode).encode(), str(inode + 1).encode())
    with serving(near) as helper:
        outcome, end = helper.ask(asked)
    assert (outcome["status"], end["error"]) == ("kept", "")
    assert lock in names(near)


@pytest.mark.slow
def test_a_slow_sender_is_cut_off(near: ThrowawayStore) -> None:
    lock = stale_lock(near)
    asked = line_for(near, lock)
    started = time.monotonic()
    with serving(near, allow=(CLIENT, os.geteuid())) as helper:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(helper.socket)
            try:
                for byte in asked:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.2)
                pytest.fail("it was listened to for far too long")
            except BrokenPipeError:
                assert time.monotonic() - started > 9
        assert lock in names(near)
        assert helper.ask(asked)[0]["status"] == "removed"
