# SPDX-License-Identifier: MIT
"""Audit records as sealed lines, each chained to the one before by its hash. Pure.

The helper writes them and anybody may check them, so both sides share this.
"""

import hashlib
from collections.abc import Mapping

from storewarden.errors import BadMessageError
from storewarden.strict_json import canonical, load


def seal(record: Mapping[str, object]) -> bytes:
    """The audit record with the hash over all else in it, as a line with its newline."""
    return canonical({**record, "hash": digest(record)}) + b"\n"


def digest(record: Mapping[str, object]) -> str:
    """SHA-256 over the canonical record; `prev` in it chains it to the one before."""
    return hashlib.sha256(canonical(record)).hexdigest()


def unseal(line: bytes) -> dict[str, object]:
    """The record of one audit line, `hash` included; `BadMessageError` where it does not hold."""
    record = load(line)
    if not isinstance(record, dict):
        raise BadMessageError("not an object")
    body = {key: value for key, value in record.items() if key != "hash"}
    if record.get("hash") != digest(body):
        raise BadMessageError("its hash does not fit")
    return record
