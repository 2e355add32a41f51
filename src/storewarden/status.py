# SPDX-License-Identifier: MIT
"""What the service last said of itself: one small JSON file in its runtime directory.

Whether it runs is not read from there but from the flock it holds beside it, which ends with it
whatever becomes of it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from storewarden.store.errors import StorewardenError

VERSION = 1
_FILE = "status.json"
_LOCK = "lock"
_LARGEST = 1024 * 1024


class AlreadyRunningError(StorewardenError):
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
    """What is wrong now, in plain words, by where: `store`, `nix`, `helper`, `configuration`,
    `leftovers`,
    `fuse`, `wakes`, `status`, `metrics`. Empty when all is well."""


@contextmanager
def held(runtime_dir: str) -> Iterator[None]:
    """Hold the runtime directory, made if need be; `AlreadyRunningError` if another does."""
    try:
        os.makedirs(runtime_dir, mode=0o755, exist_ok=True)
        fd = os.open(
            f"{runtime_dir}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise StorewardenError(
            f"cannot use the runtime directory {runtime_dir}: {reason}; set runtime-dir to one"
            " that this user can write, or let the service manager make it: sudo storewarden setup"
        ) from cause
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise AlreadyRunningError(
                f"storewarden already watches, as process {pid} (it holds {runtime_dir}/{_LOCK})"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def is_held(runtime_dir: str) -> bool:
    """Whether a service holds that runtime directory now."""
    try:
        fd = os.open(f"{runtime_dir}/{_LOCK}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write_status(runtime_dir: str, status: Status) -> None:
    """Replace the file as a whole; a reader sees the one before or this one. `OSError`."""
    draft = f"{runtime_dir}/.{_FILE}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        json.dump({"version": VERSION, **asdict(status)}, file)
    os.rename(draft, f"{runtime_dir}/{_FILE}")


def read_status(runtime_dir: str) -> Status | None:
    """What was last written; None if nothing was. `StorewardenError` if it is not understood."""
    place = f"{runtime_dir}/{_FILE}"
    try:
        with open(place, "rb") as file:
            document = json.loads(file.read(_LARGEST))
        if document.pop("version") != VERSION:
            raise ValueError("it is of another version")
        stuck = tuple(
            Stuck(**{**one, "reasons": tuple(one["reasons"])}) for one in document["stuck"]
        )
        return Status(**{**document, "stuck": stuck})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as cause:
        raise StorewardenError(f"cannot read {place}: {cause}") from cause
