# SPDX-License-Identifier: MIT
"""Lines from whoever can open the helper's socket: all that is not exactly right is refused."""

import json
from typing import Any

import pytest

from storewarden.errors import BadMessageError
from storewarden.protocol import MAX_BATCH, MAX_REQUEST, decode_request
from storewarden.store.entries import EntryKind

HASH = "0c" * 16
NAME = f"{HASH}-a"


def entry(**changes: object) -> dict[str, Any]:
    """A good entry with these members changed; `...` leaves one out."""
    members = {"name": NAME, "kind": "output", "device": 1, "inode": 2, **changes}
    return {key: value for key, value in members.items() if value is not ...}


def message(**changes: object) -> bytes:
    """A good request with these members changed; `...` leaves one out."""
    members = {"v": 1, "op": "remove", "entries": [entry()], **changes}
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


def test_the_request_that_the_others_differ_from_is_good() -> None:
    (request,) = decode_request(message())
    assert (request.base_name, request.kind, *request.file_id) == (
        NAME,
        EntryKind.OUTPUT,
        1,
        2,
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".links",
        "/",
        "tmp-storewarden-1-0",
        f"../{NAME}",
        f"./{NAME}",
        f"{NAME}/",
        f"{NAME}/..",
        f"{NAME}/bin",
        f"/nix/store/{NAME}",
        f"{NAME}\n",
        f"{NAME}\0",
        f"{NAME}\0.lock",
        f"\n{NAME}",
        f" {NAME}",
        f"{HASH}-..",
        f"{HASH}-.",
        f"{HASH}-..-a",
        f"{HASH}-\udcff",
        f"{HASH}-é",
        f"{HASH}-a\u200b",
        f"{HASH}-",
        HASH,
        f"{HASH}_a",
        f"{HASH.upper()}-a",
        f"{HASH}-{'a' * 212}",
        None,
        True,
        1,
        [NAME],
        {"name": NAME},
    ],
)
def test_a_name_that_is_no_base_name_of_a_store_path_is_refused(name: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(message(entries=[entry(name=name)]))


@pytest.mark.parametrize("number", [-1, 2**64, 2**65, 10**1000, True, False, None, "1", [], {}])
@pytest.mark.parametrize("member", ["device", "inode"])
def test_a_number_that_is_no_plain_one_of_64_bits_is_refused(member: str, number: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(message(entries=[entry(**{member: number})]))


@pytest.mark.parametrize("kind", ["", "OUTPUT", "output ", "valid", None, 1, True, ["output"], {}])
def test_a_kind_that_is_none_is_refused(kind: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(message(entries=[entry(kind=kind)]))


@pytest.mark.parametrize("version", [0, 2, -1, "1", True, None, [1], ..., 10**400])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(message(v=version))


@pytest.mark.parametrize("operation", ["", "Remove", "purge", None, 1, True, ["remove"], ...])
def test_another_operation_is_refused(operation: object) -> None:
    with pytest.raises(BadMessageError):
        decode_request(message(op=operation))


@pytest.mark.parametrize(
    "entries",
    [
        {},
        None,
        "x",
        NAME,
        1,
        ...,
        [None],
        [[]],
        [NAME],
        [{}],
        [entry(path="/etc")],
        [entry(force=True)],
        [entry(inode=...)],
        [entry(name=...)],
        [entry(), entry()],
        [entry(), entry(kind="lock", inode=3)],
        [entry(), entry(name=f"{HASH}-b"), None],
        [entry(name=f"{n:032d}-a") for n in range(MAX_BATCH + 1)],
        {"0": entry()},
    ],
)
def test_entries_that_are_not_up_to_16_different_ones_are_refused(entries: object) -> None:
    line = message(entries=entries)
    assert len(line) <= MAX_REQUEST
    with pytest.raises(BadMessageError):
        decode_request(line)


def test_none_at_all_asks_for_what_was_begun_to_be_finished() -> None:
    assert decode_request(message(entries=[])) == ()


def test_16_entries_are_the_most() -> None:
    entries = [entry(name=f"{n:032d}-a") for n in range(MAX_BATCH)]
    assert len(decode_request(message(entries=entries))) == MAX_BATCH
