# SPDX-License-Identifier: MIT
"""Reading the audit log: what was done, and whether its chain holds. Never writes."""

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from storewarden.store.errors import AuditUnavailableError, BadMessageError
from storewarden.store.records import unseal

Record = dict[str, object]
_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether every record is whole and in its place; if not, where the first is that is not."""

    files: tuple[str, ...]
    records: int
    head: str
    """The hash of the last record: kept elsewhere, it shows later that none was cut off."""
    problem: str = ""
    open_intents: int = 0
    """Removals that were begun and whose end is not on record; the next run concludes them."""


def log_files(path: str) -> tuple[str, ...]:
    """The rotated files of the log at `path`, oldest first, and itself; those that exist."""
    stem, _ = os.path.splitext(path)
    rotated = sorted(glob.glob(f"{glob.escape(stem)}-*.jsonl"))
    return (*rotated, *((path,) if os.path.lexists(path) else ()))


def read_records(path: str) -> Iterator[Record]:
    """Every whole record, oldest first; what is broken is left to `verify`."""
    for _, line in _lines(path):
        try:
            yield unseal(line)
        except BadMessageError:
            continue


def verify(path: str) -> Verification:
    """Walk the chain through all files. A torn line is fine if the next record explains it."""
    records, last, seq, torn, broken = 0, _FIRST, 0, "", b""
    intents: set[object] = set()
    for where, line in _lines(path):
        try:
            record = unseal(line)
        except BadMessageError as cause:
            torn, broken = torn or f"{where}: {cause}", broken + line
            continue
        explained = record.get("action") == "recovered"
        digest = hashlib.sha256(broken.rstrip(b"\n")).hexdigest()
        if torn and not (explained and record.get("torn_sha256") == digest):
            return Verification(log_files(path), records, last, torn)
        if record.get("prev") != last or record.get("seq") != seq + 1:
            problem = f"{where}: record {record.get('seq')} does not follow record {seq}"
            return Verification(log_files(path), records, last, problem)
        records, last, seq, torn, broken = records + 1, str(record["hash"]), seq + 1, "", b""
        match record:
            case {"action": "intent"}:
                intents.add(seq)
            case {"action": "result", "op": op}:
                intents.discard(op)
    return Verification(log_files(path), records, last, torn, len(intents))


def _lines(path: str) -> Iterator[tuple[str, bytes]]:
    files = log_files(path)
    if not files:
        raise AuditUnavailableError(f"there is no audit log {path}: nothing was removed yet")
    for name in files:
        try:
            with open(name, "rb") as file:
                for number, line in enumerate(file, 1):
                    yield f"{name} line {number}", line
        except OSError as cause:
            reason = os.strerror(cause.errno or 0).lower()
            advice = "; try: sudo storewarden audit show" if os.geteuid() else ""
            raise AuditUnavailableError(
                f"cannot read the audit log {name}: {reason}{advice}"
            ) from cause
