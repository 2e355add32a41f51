# SPDX-License-Identifier: MIT
"""Lines that are no strict JSON, or too long: refused whole, whatever they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.errors import BadMessageError
from storewarden.protocol import MAX_REQUEST, decode_request
from storewarden.store.paths import StorePath

GOOD = (
    b'{"v": 1, "op": "remove", "entries": [{"name": "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c-a",'
    b' "kind": "output", "device": 1, "inode": 2}]}'
)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        b"1",
        b'"remove"',
        GOOD + GOOD,
        GOOD + b"\n" + GOOD,
        GOOD + b"\0",
        GOOD[:-1],
        GOOD[:-1] + b',"shell":"x"}',
        GOOD[:-1] + b',"v":1}',
        GOOD.replace(b'"inode": 2', b'"inode": 2, "inode": 2'),
        GOOD.replace(b'"v": 1', b'"v": 1.0'),
        GOOD.replace(b'"v": 1', b'"v": 1e0'),
        GOOD.replace(b'"inode": 2', b'"inode": 2.0'),
        GOOD.replace(b'"inode": 2', b'"inode": NaN'),
        GOOD.replace(b'"inode": 2', b'"inode": Infinity'),
        GOOD.replace(b'"inode": 2', b'"inode": -Infinity'),
        GOOD.replace(b'"inode": 2', b'"inode": 02'),
        GOOD.replace(b'"inode": 2', b'"inode": 0x2'),
        GOOD.replace(b'"inode": 2', b'"inode": ' + b"9" * 3900),
        GOOD.replace(b'"inode": 2', '"inode": \u0662'.encode()),
        GOOD.replace(b"-a", b"-\xff"),
        GOOD.replace(b"-a", b"-a\n"),
        GOOD.replace(b"-a", b"-\xed\xa0\x80"),
        GOOD.replace(b"-a", b"-\xc0\xae"),
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-16-be"),
        GOOD.decode().encode("utf-32"),
        GOOD.replace(b'"', b"'"),
        b"[" * 4000,
        b"[" * 2000 + b"]" * 2000,
        b'{"a":' * 700 + b"1" + b"}" * 700,
        GOOD.replace(b'"op"', b" " * MAX_REQUEST + b'"op"'),
        GOOD.ljust(MAX_REQUEST + 1),
    ],
)
def test_what_is_not_one_strict_line_of_json_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode_request(line)


def test_a_line_of_just_the_greatest_length_is_read() -> None:
    assert decode_request(GOOD.ljust(MAX_REQUEST - 1) + b"\n")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8")))
def test_no_bytes_do_more_than_be_refused(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        decode_request(line)


@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255))
def test_one_wrong_byte_is_refused_or_still_points_at_a_store_path(place: int, byte: int) -> None:
    line = bytearray(GOOD)
    line[place] = byte
    try:
        (request,) = decode_request(bytes(line))
    except BadMessageError:
        return
    assert StorePath.maybe(request.base_name) is not None
