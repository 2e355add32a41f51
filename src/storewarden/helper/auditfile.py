# SPDX-License-Identifier: MIT
"""The file of the audit log: opened for one session at a time, mended, rotated, with a reserve."""

import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storewarden.errors import AuditUnavailableError, reason_of
from storewarden.helper.audit import ODD_RECORD, AuditLog, reserve_of
from storewarden.records import unseal

ROTATE_AT = 8 * 1024 * 1024
_RESERVE = 64 * 1024
_WAIT_SECONDS = 30.0


@contextmanager
def open_log(path: str) -> Iterator[AuditLog]:
    """The audit log, made where absent, ours alone until the end; waits for another session."""
    try:
        log = _open(path)
    except OSError as cause:
        raise AuditUnavailableError(
            f"cannot open the audit log {path}: {reason_of(cause)}"
        ) from cause
    try:
        yield log
    finally:
        os.close(log.fd)


def _open(path: str) -> AuditLog:
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(path), 0o750)
    log = AuditLog(path, _open_locked(path))
    try:
        _continue_rotated(log)  # the first record of this file may be missing or torn
        log.load()
        if os.fstat(log.fd).st_size <= ROTATE_AT:
            _ensure_reserve(path)
            return log
        # What the next file has to know is handed on to it.
        carried = [[*intents.values()] for intents in (log.open_intents, log.partial)]
        log.append("rotated", open=carried[0], partial=carried[1])
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
    """Start where the newest rotated file ends: only this file's own records lead further."""
    for path in rotated_files(log.path)[-1:]:
        with open(path, "rb") as file:
            last = deque(file, maxlen=1)
        try:
            log.advance(unseal(b"".join(last)))
        except ODD_RECORD as cause:
            raise AuditUnavailableError(f"{path} is damaged at its end: {cause}") from cause


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


def _ensure_reserve(path: str) -> None:
    """Space set aside for the log: a full disk is when removing debris is wanted most."""
    with suppress(OSError):  # a full disk; there may be room next time
        fd = os.open(
            reserve_of(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            if os.fstat(fd).st_size < _RESERVE:
                os.write(fd, bytes(_RESERVE))
        finally:
            os.close(fd)
