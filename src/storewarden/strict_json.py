# SPDX-License-Identifier: MIT
"""JSON without surprises: one way to write it, and a reader that refuses what is ambiguous.

`json.loads` alone would take duplicate keys, NaN, UTF-16 and floats.
"""

import json
from collections.abc import Mapping
from typing import Never

from storewarden.errors import BadMessageError


def canonical(document: Mapping[str, object]) -> bytes:
    """One way to write it: sorted keys, no spaces, ASCII only, no floats anywhere."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def load(untrusted_line: bytes) -> object:
    """The JSON of one line: UTF-8, no duplicate key, no float; `BadMessageError` otherwise."""
    try:
        return json.loads(
            untrusted_line.decode("utf-8"),
            object_pairs_hook=unique,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except (ValueError, RecursionError) as cause:
        raise BadMessageError(f"not one line of JSON: {cause}") from cause


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The members of a JSON object; `ValueError` where one stands in it twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def _refuse(text: str) -> Never:
    raise ValueError(f"{text[:20]} is not an integer")
