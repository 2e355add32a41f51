# SPDX-License-Identifier: MIT
"""Writing the audit log: each record durable before the next step is taken.

One session at a time holds the file's own flock; it mends, rotates, and keeps a reserve.
"""

import errno
import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from storewarden.audit import Chain, Record, Rotated, members_of, rotated_files, seal, unseal
from storewarden.errors import AuditUnavailableError, BadMessageError, reason_of
from storewarden.host import sync
from storewarden.protocol import VERSION
from storewarden.store.entries import FileId

ROTATE_AT = 1024 * 1024
"""Bytes. Each session reads the whole file, and a build may be waiting for it: 0.2 s."""
_RESERVE = 64 * 1024
_WAIT_SECONDS = 30.0


@dataclass(slots=True)
class AuditLog:
    """An open audit log, its flock held, and where its chain stands."""

    path: str
    fd: int
    chain: Chain = field(default_factory=Chain)
    torn: bool = False
    """Whether a record of this session could not be written whole."""

    def append(self, record: Record) -> int:
        """Write one record durably and give its number; `AuditUnavailableError` if it cannot be.

        Nothing that the record announces may be done before this returns.
        """
        if self.torn:
            raise AuditUnavailableError(f"the audit log {self.path} is torn; the next run mends it")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        head = {"v": VERSION, "seq": self.chain.seq + 1, "prev": self.chain.last, "time": now}
        line = seal({**members_of(record), **head})
        try:
            self._write(line)
            sync(self.fd)
        except OSError as cause:
            self.torn = True
            raise AuditUnavailableError(
                f"cannot write the audit log {self.path}: {reason_of(cause)}"
            ) from cause
        self.chain.follow(line)
        return self.chain.seq

    def _write(self, data: bytes) -> None:
        """All of `data`, at the cost of the reserve on a full disk: short writes do happen."""
        while data:
            try:
                data = data[os.write(self.fd, data) :]
            except OSError as cause:
                if cause.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                try:
                    os.unlink(_reserve_of(self.path))
                except OSError:
                    raise cause from None

    def load(self) -> None:
        """Read the chain up to its end, and mend the end where a crash has torn it."""
        for path in rotated_files(self.path)[-1:]:
            # Only this file's own records lead further; the first may be missing or torn.
            with open(path, "rb") as file:
                last = deque(file, maxlen=1)
            try:
                self.chain.advance(unseal(b"".join(last)))
            except BadMessageError as cause:
                raise AuditUnavailableError(f"{path} is damaged at its end: {cause}") from cause
        line = b"\n"
        with open(os.dup(self.fd), "rb") as file:  # nothing was read by it yet
            for line in file:
                self.chain.follow(line)
        if not line.endswith(b"\n"):
            # Never truncated: what was begun stays, and the next record says what it is.
            self._write(b"\n")
        if self.chain.torn:
            self.append(self.chain.recovered)

    def rotate(self) -> None:
        """Rename the file away; what the next one has to know is handed on to it."""
        chain = self.chain
        intents, partial = tuple(chain.open_intents.values()), tuple(chain.partial.values())
        self.append(Rotated(intents, partial))
        stem, _ = os.path.splitext(self.path)
        os.rename(self.path, f"{stem}-{chain.seq:016d}.jsonl")


@contextmanager
def open_log(path: str, patience: float = _WAIT_SECONDS) -> Iterator[AuditLog]:
    """The audit log, made where absent, ours alone until the end.

    It waits for another session, but not for longer than `patience`, in seconds.
    """
    try:
        log = _open(path, patience)
    except OSError as cause:
        raise AuditUnavailableError(
            f"cannot open the audit log {path}: {reason_of(cause)}"
        ) from cause
    try:
        yield log
    finally:
        os.close(log.fd)


def _open(path: str, patience: float) -> AuditLog:
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o750)
        _sync_directory(os.path.dirname(path))
    log = AuditLog(path, _open_locked(path, patience))
    try:
        log.load()
        if os.fstat(log.fd).st_size <= ROTATE_AT:
            _ensure_reserve(path)
            return log
        log.rotate()
    except BaseException:
        os.close(log.fd)
        raise
    os.close(log.fd)
    return _open(path, patience)


def _open_locked(path: str, patience: float) -> int:
    deadline = time.monotonic() + patience
    while True:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = _check_own(fd, path)
            if FileId.of(os.stat(path)) == FileId.of(found):
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
                f"another storewarden has been at work for {patience:g} s"
                f" (it holds {path}); try again when it has ended"
            )
        time.sleep(0.05)


def _check_own(fd: int, path: str) -> os.stat_result:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise AuditUnavailableError(f"the audit log {path} is not a file of this user's")
    return found


def _sync_directory(path: str) -> None:
    """Have the name at that path survive a power cut."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ensure_reserve(path: str) -> None:
    """Space set aside for the log: a full disk is when removing debris is wanted most."""
    with suppress(OSError):  # a full disk; there may be room next time
        fd = os.open(
            _reserve_of(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            if os.fstat(fd).st_size < _RESERVE:
                os.write(fd, bytes(_RESERVE))
        finally:
            os.close(fd)


def _reserve_of(path: str) -> str:
    return f"{path}.reserve"
