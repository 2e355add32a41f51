# SPDX-License-Identifier: MIT
"""Requests and outcomes as one JSON line each: strict, bounded, canonical. Pure.

A line that is not exactly what is described here is refused whole.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum

from storewarden.errors import BadMessageError, BadStorePathError
from storewarden.store.entries import EntryKind, FileId
from storewarden.store.paths import LOCK_SUFFIX, StorePath
from storewarden.strict_json import canonical, load

VERSION = 1
MAX_REQUEST = 4096
"""Bytes of one request line, newline included."""
MAX_BATCH = 16
_MAX_INTEGER = 2**64
CANNOT_BE_PUT_BACK = "cannot be put back"
"""Among the reasons of what was moved, may be wanted, and does not lie in its place."""


class Status(StrEnum):
    """What became of an entry."""

    TAKEN = "taken"
    """Out of the store, its space not yet freed; a last outcome for it follows."""
    REMOVED = "removed"
    VANISHED = "vanished"
    KEPT = "kept"
    PARTIAL = "partial"
    """Out of the store, but something of it could not be removed; tried again next time."""
    FAILED = "failed"


class EndCode(StrEnum):
    """Why a whole request came to nothing: for programs, where the error beside it is for people.

    Neither side needs the other's to be of its own age: a client takes a code that it has never
    heard of, or none at all, for an error like any other.
    """

    NOT_ALLOWED = "not-allowed"
    """This user may not ask."""
    UNAVAILABLE = "unavailable"
    """What a removal cannot do without is not to be had now, such as the audit log."""
    UNREADABLE = "unreadable"
    """The store, the machine or the request cannot be read, or not be believed."""


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """Which entry, of what kind, and what it looked like. It can only point."""

    base_name: str
    kind: EntryKind
    file_id: FileId

    @property
    def turn(self) -> int:
        """When it is its turn.

        What lies where a lock of Nix's belongs keeps all that the lock covers, and so goes first. A
        lock goes last: it may be the only thing that tells whose its output is.
        """
        return 2 if self.kind is EntryKind.LOCK else not self.base_name.endswith(LOCK_SUFFIX)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one requested entry, and why."""

    base_name: str
    status: Status
    reasons: tuple[str, ...] = ()
    unproved: bool = False
    """Kept because something could not be told, not because something claims it."""
    files: int = 0
    directories: int = 0
    bytes: int = 0


def decode_request(untrusted_line: bytes) -> tuple[RemoveRequest, ...]:
    """The requests of one line; `BadMessageError` says what is wrong with it.

    None at all asks for what an earlier run left behind to be finished.
    """
    if len(untrusted_line) > MAX_REQUEST:
        raise BadMessageError(f"a request is longer than {MAX_REQUEST} bytes")
    message = _members(load(untrusted_line), {"v", "op", "entries"})
    if _integer(message["v"]) != VERSION or message["op"] != "remove":
        raise BadMessageError(f"only version {VERSION} and the operation 'remove' are known")
    untrusted_entries = message["entries"]
    if not isinstance(untrusted_entries, list) or len(untrusted_entries) > MAX_BATCH:
        raise BadMessageError(f"a request names at most {MAX_BATCH} entries")
    requests = tuple(_request(untrusted) for untrusted in untrusted_entries)
    if len({request.base_name for request in requests}) != len(requests):
        raise BadMessageError("a request names an entry twice")
    return requests


def encode_outcome(outcome: Outcome) -> bytes:
    """The line that tells one outcome, newline included."""
    return canonical({"v": VERSION, **asdict(outcome), "reasons": list(outcome.reasons)}) + b"\n"


def encode_end(error: str = "", code: EndCode | None = None) -> bytes:
    """The last line of a reply; with an error and its code where the request came to nothing."""
    coded = {"code": code.value} if code else {}
    return canonical({"v": VERSION, "end": True, "error": error, **coded}) + b"\n"


def _members(untrusted: object, keys: set[str]) -> dict[str, object]:
    if not isinstance(untrusted, dict) or set(untrusted) != keys:
        raise BadMessageError(f"an object with exactly {', '.join(sorted(keys))} is wanted")
    return untrusted


def _integer(untrusted: object) -> int:
    # type() and not isinstance(): in Python True is an int.
    if type(untrusted) is not int or not 0 <= untrusted < _MAX_INTEGER:
        raise BadMessageError("a number is not a plain one of 64 bits")
    return untrusted


def _request(untrusted: object) -> RemoveRequest:
    members = _members(untrusted, {"name", "kind", "device", "inode"})
    name, kind = members["name"], members["kind"]
    if not isinstance(name, str) or not isinstance(kind, str):
        raise BadMessageError("name and kind are texts")
    try:
        return RemoveRequest(
            StorePath(name).base_name,
            EntryKind(kind),
            FileId(_integer(members["device"]), _integer(members["inode"])),
        )
    except (BadStorePathError, ValueError) as cause:
        raise BadMessageError(str(cause)) from cause
