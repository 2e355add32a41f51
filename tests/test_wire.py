# SPDX-License-Identifier: MIT
"""Requests and outcomes as lines: what one side writes the other reads, and batches fit."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.audit import digest, seal, unseal
from storewarden.client import (
    HelperUnavailableError,
    batches,
    decode_reply,
    encode_request,
    request_for,
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
from storewarden.store.entries import Entry, EntryKind, FileId
from storewarden.store.paths import NIX32
from storewarden.strict_json import canonical

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
    None: StoreUnreadableError,
}
"""What each end is to a client; the last is that of an older helper, which gives no code."""


@given(st.text(min_size=1), st.sampled_from([*EndCode, None]))
def test_the_end_arrives_as_its_error_with_its_words(error: str, code: EndCode | None) -> None:
    came = decode_reply(encode_end(error, code))
    assert type(came) is ERRORS[code]
    assert str(came) == error


def test_an_end_without_an_error_arrives_as_none_and_as_it_always_was() -> None:
    assert encode_end() == b'{"end":true,"error":"","v":1}\n'
    assert decode_reply(encode_end()) is None


@pytest.mark.parametrize("code", [b'"of-a-later-version"', b"7", b"null", b"[]"])
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


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.text().filter(lambda key: key != "hash"), json_values, max_size=5)


@given(records)
def test_a_sealed_record_opens_again(record: dict[str, object]) -> None:
    assert unseal(seal(record)) == {**record, "hash": digest(record)}


@given(records, st.data())
def test_any_changed_byte_breaks_the_seal(record: dict[str, object], data: st.DataObject) -> None:
    line = bytearray(seal(record).rstrip(b"\n"))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    try:
        opened = unseal(bytes(line))
    except BadMessageError:
        return
    # Only white space and other spellings of the same text may be read as the same record.
    assert opened == {**record, "hash": digest(record)}


@given(records)
def test_there_is_one_way_to_write_a_record(record: dict[str, object]) -> None:
    shuffled = dict(reversed(record.items()))
    assert canonical(shuffled) == canonical(record)
    assert canonical(record).isascii()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_record_has_a_number_that_json_lacks(value: float) -> None:
    with pytest.raises(ValueError, match="float"):
        seal({"a": value})


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"hash":1}', b'{"a":1}', b"\xff"])
def test_a_line_without_its_hash_is_no_record(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        unseal(line)
