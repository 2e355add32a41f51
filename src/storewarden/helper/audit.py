# SPDX-License-Identifier: MIT
"""The audit log: intent before an act, result after it, each durable before the next step.

JSON Lines, chained by hash. A chain shows edits and gaps; it cannot show that the end was cut
off, nor what root rewrote whole. One session at a time holds the log's own flock.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from storewarden.store.errors import AuditUnavailableError, BadMessageError
from storewarden.store.wire import VERSION, Status, seal, unseal

ROTATE_AT = 8 * 1024 * 1024
_RESERVE = 64 * 1024
_WAIT_SECONDS = 30.0
_FIRST = "0" * 64
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
    """The intents whose last result is that something was left; the next run tries again."""

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
                f"cannot write the audit log {self.path}: {os.strerror(cause.errno or 0).lower()}"
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
                    os.unlink(_reserve(self.path))
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
                    self.partial[op] = intent

    def load(self) -> None:
        """Read the chain up to its end, and mend the end where a crash has torn it."""
        with open(os.dup(self.fd), "rb") as file:
            file.seek(0)
            torn = b""
            for line in file:
                try:
                    self.advance(unseal(line))
                    torn = b"" if line.endswith(b"\n") else line
                except (BadMessageError, KeyError):
                    torn = line
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


@contextmanager
def open_log(path: str) -> Iterator[AuditLog]:
    """The audit log, made where absent, ours alone until the end; waits for another session."""
    try:
        log = _open(path)
    except OSError as cause:
        reason = os.strerror(cause.errno or 0).lower()
        raise AuditUnavailableError(f"cannot open the audit log {path}: {reason}") from cause
    try:
        yield log
    finally:
        os.close(log.fd)


def _open(path: str) -> AuditLog:
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o750)
    log = AuditLog(path, _open_locked(path))
    try:
        if os.fstat(log.fd).st_size == 0:
            _continue_rotated(log)
        log.load()
        if os.fstat(log.fd).st_size <= ROTATE_AT or log.open_intents:
            _ensure_reserve(path)
            return log
        log.append("rotated")
        stem, _ = os.path.splitext(path)
        os.rename(path, f"{stem}-{log.seq:016d}.jsonl")
    except BaseException:
        os.close(log.fd)
        raise
    os.close(log.fd)
    return _open(path)


def rotated_files(path: str) -> list[str]:
    """The earlier files of the log at `path`, oldest first."""
    directory, name = os.path.split(path)
    stem, _ = os.path.splitext(name)
    try:
        names = os.listdir(directory or ".")
    except FileNotFoundError:
        return []
    old = [n for n in names if n.startswith(f"{stem}-") and n.endswith(".jsonl")]
    return [os.path.join(directory, n) for n in sorted(old)]


def _continue_rotated(log: AuditLog) -> None:
    """Go on with the chain of the newest rotated file, where this one is new and empty."""
    for path in rotated_files(log.path)[-1:]:
        with open(path, "rb") as file:
            *_, line = file
        log.advance(unseal(line))


def _open_locked(path: str) -> int:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = _check_own(fd, path)
            linked = os.stat(path)
            if (linked.st_dev, linked.st_ino) == (found.st_dev, found.st_ino):
                _sync_directory(path)
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass  # another session has it, or has just rotated it away
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if time.monotonic() > deadline:
            raise AuditUnavailableError(
                f"another storewarden has been at work for {_WAIT_SECONDS:.0f} s"
                f" (it holds {path}); try again when it has ended"
            )
        time.sleep(0.05)


def _check_own(fd: int, path: str) -> os.stat_result:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise AuditUnavailableError(f"the audit log {path} is not a file of this user's")
    return found


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reserve(path: str) -> str:
    return f"{path}.reserve"


def _ensure_reserve(path: str) -> None:
    """Space set aside for the log: a full disk is when removing debris is wanted most."""
    with suppress(OSError):  # a full disk; there may be room next time
        fd = os.open(_reserve(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size < _RESERVE:
                os.write(fd, bytes(_RESERVE))
        finally:
            os.close(fd)
