# SPDX-License-Identifier: MIT
"""What the service last wrote of itself: one small JSON file in its runtime directory.

Whether it runs is not read from there but from the flock it holds on its pid file beside it, which
ends with it whatever becomes of it. Nobody else can open that, for anybody's flock on it would
keep the service from starting; for others, what counts is whether that process lives.
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from storewarden import __version__, host
from storewarden.errors import StorewardenError, UnavailableError

_VERSION = 1
_FILE = "status.json"
_PID = "pid"
_LARGEST = 16 * 1024 * 1024
"""Bytes of a status: 100 stuck entries, and whatever their reasons quote, are a few MiB."""
_MOST = 5e10
"""Of a float. All are seconds; as a Unix time this is in the year 3554."""
SILENCE = 900.0
"""Seconds. It says something each minute, but for the time that a sweep or a removal takes."""
_TRIES, _PAUSE = 20, 0.05
_CLOCK_SECONDS = 1.0
"""By which a process's start, counted since boot, may seem later than it was."""
BUILT_ON_REMAINS = "built on the remains of an interrupted build; it may hold stale files"
PLACES: Mapping[str, str] = {
    "store": "is it mounted, are store-dir and state-dir right? storewarden scan --dry-run",
    "nix": "does nix-daemon run? storewarden scan --dry-run says what Nix answers",
    "helper": "storewarden doctor says what to do; or by hand: sudo storewarden scan --yes",
    "leftovers": "it is tried again; what became of it: storewarden audit log",
    "put-back": "a build may miss it; it is tried again soon; whose: storewarden audit log",
    "configuration": "mend the file, then: storewarden check-config",
    "fuse": "look: storewarden scan --dry-run; if all of it may go: sudo storewarden scan --yes",
    "wakes": "nothing is lost, changes are only noticed later; see the service's log",
    "status": "is runtime-dir still there, and not full? storewarden check-config shows it",
    "metrics-textfile": "correct it in the configuration, then reload: storewarden check-config",
    "metrics-listen": "correct it in the configuration, then reload: storewarden check-config",
}
"""Where the service may have problems (`ServiceStatus.problems`), and what to do about each."""


WAITS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds from stranded to removed, by which removals are counted."""


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
class Removed:
    """An entry that is gone."""

    name: str
    kind: str
    time: float
    """Unix time."""
    files: int
    bytes: int
    """Freed."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A valid path that was built on the remains of an interrupted build."""

    name: str
    registered: int
    """By that number in the database: another is another registration."""
    derivation: str
    output: str
    scratch: str
    """Where the remains lay."""
    since: float
    """Unix time from which on it was built."""


@dataclass(slots=True)
class ServiceStatus:
    """The service at one moment. Times are Unix times in seconds; counts are since its start.

    The service counts in one of its own, and tells by copies of it.
    """

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
    found: dict[str, int] = field(default_factory=dict)
    """By kind, what the last whole sweep found."""
    watched: int = 0
    """Suspects: young or claimed entries that are looked at again soon."""
    stuck: tuple[Stuck, ...] = ()
    """What should go and could not, at most 100 of it; `stuck_count` counts all."""
    stuck_count: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    """By kind, what was removed."""
    removed_bytes: int = 0
    recent: tuple[Removed, ...] = ()
    """What was removed last, newest last, at most 20 of it; the audit log has all."""
    waited: tuple[int, ...] = (0,) * (len(WAITS) + 1)
    """How many removals came within so long (`WAITS`) of the entry's last change; the last counts
    those that came later. None is counted twice."""
    waited_seconds: float = 0.0
    """All of these together."""
    registered_bytes: int | None = None
    """What all valid paths take, as registered, at the last whole sweep; None if not known."""
    refused: int = 0
    """How often the helper kept what was asked for."""
    failed: int = 0
    """How often a removal failed, in whole or in part."""
    program_version: str = ""
    """Of the storewarden that the service runs; before 0.2 it did not say."""
    ended: bool = False
    """Whether it was told to end, and did: this is its last word."""
    doubtful: tuple[Doubtful, ...] = ()
    """Valid paths that may hold stale files, at most 100; `doubtful_count` counts all."""
    doubtful_count: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong now, in plain words, by where (`PLACES`). Empty when all is well."""

    def line(self) -> str:
        """The same in one line, for `systemctl status`."""
        words = [
            f"{sum(self.found.values())} found",
            f"{self.watched} watched",
            f"{sum(self.removed.values())} removed",
        ]
        if self.stuck_count:
            words.append(f"{self.stuck_count} STUCK")
        if self.doubtful_count:
            words.append(f"{self.doubtful_count} DOUBTFUL")
        words += [f"{where}: {text}" for where, text in self.problems.items()]
        return "; ".join(words)


def other_version(status: ServiceStatus | None) -> str:
    """That the service runs another storewarden than this, in one sentence; else empty."""
    if status is None or status.program_version == __version__:
        return ""
    theirs = (
        f"storewarden {status.program_version}"
        if status.program_version
        else "an older storewarden"
    )
    return f"the service runs {theirs}, and this program is {__version__}"


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
        if lives is None:  # it has said nothing yet, or its directory is just being taken away
            lives = _is_locked(place)
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


def write_status(runtime_dir: str, status: ServiceStatus) -> None:
    """Replace the file as a whole; a reader sees the one before or this one. `OSError`."""
    document = {"version": _VERSION, **asdict(status)}
    replace_file(f"{runtime_dir}/{_FILE}", json.dumps(document).encode("ascii"))


def replace_file(path: str, content: bytes) -> None:
    """Make that the whole content of the file, 0644; who reads it sees the one before or this one.

    The draft lies beside it as `.NAME.draft`, which no reader of `*.prom` takes. `OSError`.
    """
    directory, name = os.path.split(path)
    draft = os.path.join(directory, f".{name}.draft")
    # A draft that a killed process left goes; never is one written through that somebody put there.
    with suppress(FileNotFoundError):
        os.unlink(draft)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, 0o644)  # whatever the umask
        os.rename(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise


def read_status(runtime_dir: str) -> ServiceStatus | None:
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


def _lives(status: ServiceStatus | None) -> bool | None:
    """Whether the process that wrote this lives; None if there is nothing, or cannot be seen."""
    from storewarden import processes  # noqa: PLC0415 - psutil, for who may not open the lock

    began = processes.began(status.pid) if status else None
    if status is None or began is None:
        return None
    # A later process of the same number began after this was said.
    return began <= status.started + _CLOCK_SECONDS


def _is_locked(place: str) -> bool | None:
    """Whether the kernel's table has a lock on that file; None where there is no such table."""
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    flocks = host.flocks()
    if flocks is None:
        return None
    return any((lock.inode, lock.device) == (found.st_ino, device) for lock in flocks)


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


def _parsed(text: bytes) -> ServiceStatus:
    if len(text) > _LARGEST:
        raise ValueError(f"it is longer than a status can be ({_LARGEST} bytes)")
    document = json.loads(text)
    version = document.get("version") if isinstance(document, dict) else None
    if version != _VERSION:
        raise ValueError(f"it is of version {version!r:.20}, not {_VERSION}")
    return typed(ServiceStatus, document)  # type: ignore[no-any-return]


def _unusable(runtime_dir: str, cause: OSError) -> StorewardenError:
    reason = (cause.strerror or str(cause)).lower()
    return StorewardenError(
        f"cannot use the runtime directory {runtime_dir}: {reason}; set runtime-dir to one"
        " that this user can write, or let the service manager make it: sudo storewarden setup"
    )


def _unreadable(place: str, cause: OSError, hint: str) -> StorewardenError:
    reason = (cause.strerror or str(cause)).lower()
    return StorewardenError(f"cannot read {place}: {reason}; {hint}")


def typed(expected: Any, value: Any) -> Any:  # noqa: ANN401 - any field, any JSON
    """The value as a field of that type holds it; `ValueError` or `TypeError` if it cannot.

    Members that the dataclass does not have are passed over; what is left out has its default.
    """
    match get_origin(expected) or expected, value:
        case kind, dict() if is_dataclass(kind):
            given = {one.name: one.type for one in fields(kind) if one.name in value}
            read: Any = expected(
                **{name: typed(inner, value[name]) for name, inner in given.items()}
            )
        case kind, dict() if kind is dict:
            read = {key: typed(get_args(expected)[1], one) for key, one in value.items()}
        case kind, list() if kind is tuple:
            read = tuple(typed(get_args(expected)[0], one) for one in value)
        case kind, _ if kind is UnionType:
            read = None if value is None else typed(get_args(expected)[0], value)
        # type() and not isinstance(): in Python True is an int.
        case kind, _ if kind is float and type(value) in {int, float} and abs(value) < _MOST:
            read = float(value)
        case kind, _ if kind in {bool, int, str} and type(value) is kind:
            read = value
        case _:
            raise ValueError(f"{value!r:.40} stands where {expected} is wanted")
    return read


def open_regular(path: str, flags: int) -> int:
    """A descriptor of a regular file and nothing else; a named pipe there makes nobody wait.

    `OSError` where it is another thing, a link too.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(f"{path} is not a regular file")
