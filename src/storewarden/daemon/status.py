# SPDX-License-Identifier: MIT
"""What the service last said of itself: one small JSON file in its runtime directory.

Whether it runs is not read from there but from the flock it holds on its pid file beside it, which
ends with it whatever becomes of it. Nobody else can open that, for anybody's flock on it would
keep the service from starting; others are told by whether that process lives.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from storewarden import processes
from storewarden.daemon.replacing import open_regular, replace_file
from storewarden.daemon.typed import typed
from storewarden.errors import StorewardenError, UnavailableError

VERSION = 1
_FILE = "status.json"
_PID = "pid"
_LARGEST = 16 * 1024 * 1024
"""Bytes of a status: 100 stuck entries, and whatever their reasons quote, are a few MiB."""
SILENCE = 900.0
"""Seconds. It says something each minute, but for the time that a sweep or a removal takes."""
_TRIES, _PAUSE = 20, 0.05
_CLOCK_SECONDS = 1.0
"""By which a process's start, counted since boot, may seem later than it was."""


class AlreadyRunningError(UnavailableError):
    """Another service holds this runtime directory."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """An entry that should go and could not: nothing alive is known to claim it."""

    name: str
    kind: str
    since: float
    """Unix time of the first try."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The service at one moment. Times are Unix times in seconds; counts are since its start."""

    pid: int
    started: float
    updated: float
    mode: str
    """`report` or `repair`."""
    store_dir: str
    wakes: str = ""
    """What tells it of changes: `inotify` or `polling`."""
    sweeps: int = 0
    swept: float | None = None
    """When the last whole sweep ended; None before the first."""
    sweep_seconds: float = 0.0
    """How long that one took."""
    overflows: int = 0
    """How often the system lost count of the changes, so that a whole sweep was needed."""
    found: Mapping[str, int] = field(default_factory=dict)
    """By kind, what the last whole sweep found."""
    watched: int = 0
    """Suspects: young or claimed entries that are looked at again soon."""
    stuck: tuple[Stuck, ...] = ()
    """What should go and could not, at most 100 of it; `stuck_count` counts all."""
    stuck_count: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)
    """By kind, what was removed."""
    removed_bytes: int = 0
    refused: int = 0
    """How often the helper kept what was asked for."""
    failed: int = 0
    """How often a removal failed, in whole or in part."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What is wrong now, in plain words, by where (`families.PLACES`). Empty when all is well."""


@contextmanager
def held(runtime_dir: str) -> Iterator[None]:
    """Hold the runtime directory, made if need be; `AlreadyRunningError` if another does.

    What an earlier service said there is forgotten.
    """
    try:
        os.makedirs(runtime_dir, mode=0o755, exist_ok=True)
        fd = open_regular(f"{runtime_dir}/{_PID}", os.O_RDWR | os.O_CREAT)
        os.fchmod(fd, 0o600)
    except OSError as cause:
        raise _unusable(runtime_dir, cause) from cause
    try:
        try:
            locked = _lock(fd)
            if locked:
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                with suppress(FileNotFoundError):
                    os.unlink(f"{runtime_dir}/{_FILE}")  # said by a service that is gone
        except OSError as cause:
            raise _unusable(runtime_dir, cause) from cause
        if not locked:
            pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"storewarden already watches, as process {pid} (it holds {runtime_dir}/{_PID})"
            )
        yield
    finally:
        os.close(fd)


def is_held(runtime_dir: str) -> bool:
    """Whether a service holds that runtime directory now; `StorewardenError` if none can tell."""
    place = f"{runtime_dir}/{_PID}"
    try:
        fd = open_regular(place, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError as cause:
        lives = _lives(read_status(runtime_dir))
        if lives is None:
            raise _unreadable(place, cause, "ask as root: sudo storewarden status") from cause
        return lives
    except OSError as cause:
        raise _unreadable(place, cause, "ask as root: sudo storewarden status") from cause
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as cause:
        raise _unreadable(place, cause, "set runtime-dir to a local directory") from cause
    finally:
        os.close(fd)
    return False


def write_status(runtime_dir: str, status: Status) -> None:
    """Replace the file as a whole; a reader sees the one before or this one. `OSError`."""
    document = {"version": VERSION, **asdict(status)}
    replace_file(f"{runtime_dir}/{_FILE}", json.dumps(document).encode("ascii"))


def read_status(runtime_dir: str) -> Status | None:
    """What was last written; None if nothing was. `StorewardenError` if it is not understood.

    As docs/json.md promises, members of a later storewarden are passed over.
    """
    place = f"{runtime_dir}/{_FILE}"
    try:
        with os.fdopen(open_regular(place, os.O_RDONLY), "rb") as file:
            text = file.read(_LARGEST + 1)
        return _parsed(text)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise _unreadable(place, cause, "ask as root: sudo storewarden status") from cause
    except (ValueError, TypeError, OverflowError, RecursionError) as cause:
        raise StorewardenError(
            f"cannot understand {place}: {cause}; restart the service, which writes it anew"
        ) from cause


def _lives(said: Status | None) -> bool | None:
    """Whether the process that said this lives; None if it said nothing, or cannot be seen."""
    began = processes.began(said.pid) if said else None
    if said is None or began is None:
        return None
    # A later process of the same number began after this was said.
    return began <= said.started + _CLOCK_SECONDS


def _lock(fd: int) -> bool:
    """Take the lock, unless another has it for a whole second.

    Who asks whether a service runs (`is_held`) has it shared for an instant; that is no service.
    """
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def _parsed(text: bytes) -> Status:
    if len(text) > _LARGEST:
        raise ValueError(f"it is longer than a status can be ({_LARGEST} bytes)")
    document = json.loads(text)
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION:
        raise ValueError(f"it is of version {version!r:.20}, not {VERSION}")
    return typed(Status, document)  # type: ignore[no-any-return]


def _unusable(runtime_dir: str, cause: OSError) -> StorewardenError:
    reason = (cause.strerror or str(cause)).lower()
    return StorewardenError(
        f"cannot use the runtime directory {runtime_dir}: {reason}; set runtime-dir to one"
        " that this user can write, or let the service manager make it: sudo storewarden setup"
    )


def _unreadable(place: str, cause: OSError, hint: str) -> StorewardenError:
    reason = (cause.strerror or str(cause)).lower()
    return StorewardenError(f"cannot read {place}: {reason}; {hint}")
