# SPDX-License-Identifier: MIT
"""Reading the audit log: what was done, and whether its chain holds. Never writes."""

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from storewarden.errors import AuditUnavailableError, BadMessageError
from storewarden.records import unseal

Record = dict[str, object]
_FIRST = "0" * 64
# fmt: off
_TEXTS = frozenset(
    {
        "time", "action", "prev", "hash", "name", "kind", "status", "deriver", "output",
        "private", "program", "torn_sha256", "via",
    }
)
_COUNTS = frozenset(
    {
        "v", "seq", "op", "device", "inode", "mode", "uid", "gid", "pid", "files",
        "directories", "bytes", "resumed", "torn_bytes",
    }
)
# fmt: on
_LISTS = frozenset({"locks", "absent", "reasons"})
_NEEDED = ("v", "seq", "prev", "time", "action")
_NEEDED_BY = {
    "intent": ("name",),
    "result": ("op", "status"),
    "resumed": ("name", "status"),
    "recovered": ("torn_sha256", "torn_bytes"),
}
_LARGEST = 2**64
_DEEPEST = 4
"""Objects and lists within each other, the record itself included; a rotated one holds intents."""


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
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return tuple(rotated)
    except OSError:
        pass  # it is not known to be absent; opening it tells why
    return (*rotated, path)


def read_records(path: str) -> Iterator[Record]:
    """Every whole record, oldest first; what is broken is left to `verify`."""
    for _, line in _lines(path):
        try:
            yield _whole(line)
        except BadMessageError:
            continue


def flaw(record: Record) -> str:
    """Why a whole record is none that this program writes, in plain words; empty if it is.

    A hash says that nobody has changed it since; not that its members are what they are called.
    """
    needed = (*_NEEDED, *_NEEDED_BY.get(str(record.get("action")), ()))
    missing = [name for name in needed if name not in record]
    if missing:
        return f"{missing[0]!r} is missing in it"
    wrong = [name for name, value in record.items() if not _fits(name, value)]
    return f"{wrong[0]!r} is not what it should be in it" if wrong else ""


def _fits(name: str, value: object) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _COUNTS:
        # type() and not isinstance(): in Python True is an int.
        return type(value) is int and 0 <= value < _LARGEST
    if name == "ctime":
        return type(value) is int and abs(value) < _LARGEST
    if name in _LISTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name == "requester":
        return isinstance(value, dict) and all(_fits(*member) for member in value.items())
    return True  # of a version to come


def _whole(line: bytes) -> Record:
    """The record of that line; `BadMessageError` where it is none, or could not be shown."""
    try:
        record = unseal(line)
    except RecursionError:
        record = None
    if record is None or _is_deep(record, _DEEPEST):
        raise BadMessageError("nested deeper than any record")
    return record


def _is_deep(value: object, left: int) -> bool:
    match value:
        case dict():
            return not left or any(_is_deep(one, left - 1) for one in value.values())
        case list():
            return not left or any(_is_deep(one, left - 1) for one in value)
    return False


def verify(path: str) -> Verification:
    """Walk the chain through all files. A torn line is fine if the next record explains it."""
    records, last, seq, torn, broken = 0, _FIRST, 0, "", b""
    intents: set[object] = set()
    for where, line in _lines(path):
        try:
            record = _whole(line)
        except BadMessageError as cause:
            torn, broken = torn or f"{where}: {cause}", broken + line
            continue
        explained = record.get("action") == "recovered"
        digest = hashlib.sha256(broken.rstrip(b"\n")).hexdigest()
        if torn and not (explained and record.get("torn_sha256") == digest):
            return Verification(log_files(path), records, last, torn)
        if record.get("prev") != last or record.get("seq") != seq + 1:
            problem = f"{where}: record {record.get('seq')!s:.20} does not follow record {seq}"
            return Verification(log_files(path), records, last, problem)
        if why := flaw(record):
            return Verification(log_files(path), records, last, f"{where}: record {seq + 1}: {why}")
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
