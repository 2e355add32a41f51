# SPDX-License-Identifier: MIT
"""The audit log: intent before an act, result after it, each durable before the next step.

JSON Lines, chained by hash. A chain shows edits and gaps; it cannot show that the end was cut
off, nor what root rewrote whole. One session at a time holds the log's own flock.
"""

import errno
import hashlib
import os
import time
from dataclasses import dataclass, field

from storewarden.errors import AuditUnavailableError, BadMessageError, reason_of
from storewarden.protocol import VERSION, Outcome, Status
from storewarden.records import seal, unseal

_FIRST = "0" * 64
COUNTS = ("files", "directories", "bytes")
ODD_RECORD = (BadMessageError, KeyError, TypeError)
"""What `AuditLog.advance` and `unseal` raise where a line is not what this program writes."""
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


@dataclass(slots=True)
class AuditLog:
    """An open audit log, its flock held; where the chain stands and which intents are open."""

    path: str
    fd: int
    seq: int = 0
    last: str = _FIRST
    torn: bool = False
    """Whether a record of this session could not be written whole."""
    open_intents: dict[int, dict[str, object]] = field(default_factory=dict)
    partial: dict[int, dict[str, object]] = field(default_factory=dict)
    """The intents whose last result is that something was left, with what was counted by then."""

    def append(self, action: str, **members: object) -> int:
        """Write one record durably and give its number; `AuditUnavailableError` if it cannot be.

        Nothing that the record announces may be done before this returns.
        """
        if self.torn:
            raise AuditUnavailableError(f"the audit log {self.path} is torn; the next run mends it")
        record: dict[str, object] = {
            **members,
            "v": VERSION,
            "seq": self.seq + 1,
            "prev": self.last,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "action": action,
        }
        line = seal(record)
        try:
            self._write(line)
            _sync(self.fd)
        except OSError as cause:
            self.torn = True
            raise AuditUnavailableError(
                f"cannot write the audit log {self.path}: {reason_of(cause)}"
            ) from cause
        self.advance(unseal(line))
        return self.seq

    def _write(self, data: bytes) -> None:
        """All of `data`, at the cost of the reserve on a full disk: short writes do happen."""
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except OSError as cause:
                if cause.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                try:
                    os.unlink(reserve_of(self.path))
                except OSError:
                    raise cause from None

    def advance(self, record: dict[str, object]) -> None:
        """Move to the end of the chain that `record` is."""
        seq, last = record["seq"], record["hash"]
        if not isinstance(seq, int) or not isinstance(last, str):
            raise BadMessageError("a record without number or hash")
        self.seq, self.last = seq, last
        match record:
            case {"action": "intent"}:
                self.open_intents[seq] = record
            case {"action": "result", "op": int(op), "status": status}:
                intent = self.open_intents.pop(op, None) or self.partial.pop(op, None)
                if intent is not None and status == Status.PARTIAL:
                    self.partial[op] = intent | {key: record.get(key, 0) for key in COUNTS}
            case {"action": "rotated", "open": list(intents), "partial": list(partial)}:
                self.open_intents = {intent["seq"]: intent for intent in intents}
                self.partial = {intent["seq"]: intent for intent in partial}

    def load(self) -> None:
        """Read the chain up to its end, and mend the end where a crash has torn it."""
        with open(os.dup(self.fd), "rb") as file:  # nothing was read by it yet
            torn = b""
            for line in file:
                try:
                    self.advance(unseal(line))
                    torn = b"" if line.endswith(b"\n") else line
                except ODD_RECORD:
                    torn += line  # more than one, where the mending was interrupted as well
        if torn and not torn.endswith(b"\n"):
            # Never truncated: what was begun stays, and the next record says what it is.
            self._write(b"\n")
        if torn and self._is_broken(torn):
            digest = hashlib.sha256(torn.rstrip(b"\n")).hexdigest()
            self.append("recovered", torn_sha256=digest, torn_bytes=len(torn.rstrip(b"\n")))

    def _is_broken(self, line: bytes) -> bool:
        try:
            return unseal(line).get("hash") != self.last
        except BadMessageError:
            return True


def result_of(outcome: Outcome) -> dict[str, object]:
    """What a record says of an outcome."""
    counts = {key: getattr(outcome, key) for key in COUNTS}
    told = {"name": outcome.base_name, "status": outcome.status.value}
    return {**told, "reasons": list(outcome.reasons), **counts}


def reserve_of(path: str) -> str:
    """Where the log at `path` keeps its reserve for a full disk."""
    return f"{path}.reserve"
