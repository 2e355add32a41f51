# SPDX-License-Identifier: MIT
"""What the service waits for, and what tells of changes. The only file that knows watchdog.

Only the store directory itself is watched, never anything below it, and an event of it is never
believed: it only says where to look. Where the kernel does not tell of changes for certain, the
directory's own time of change is looked at instead (research: google/gvisor#8089, kata#1505).
"""

import logging
import os
import selectors
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module

from watchdog import events as fs
from watchdog.observers.api import BaseObserver, EventEmitter

from storewarden import host, processes
from storewarden.protocol import Outcome

INOTIFY, POLLING = "inotify", "polling"
_TOLD = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""File systems of which inotify tells every change. Others may change from elsewhere (9p, nfs,
virtiofs), or below (overlay), without a word."""
_NAMED: list[type[fs.FileSystemEvent]] = [
    fs.DirCreatedEvent,
    fs.DirDeletedEvent,
    fs.DirMovedEvent,
    fs.FileCreatedEvent,
    fs.FileDeletedEvent,
    fs.FileMovedEvent,
    fs.FileClosedEvent,
]
_UNSURE_NS = 2_000_000_000
"""Changes this short after one that was seen may have the same time of change."""


_MOST_DEATHS = 256
"""Processes whose end is waited for, each with a descriptor: of others the next look tells."""
_PAIRING = (
    ("inotify_move_event_grouper", "InotifyMoveEventGrouper"),  # from watchdog 7 on
    ("inotify_buffer", "InotifyBuffer"),
)
_PAIRING_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry of that name was made, moved or removed."""

    name: str
    made: bool = False
    """Whether it was made: what was of that name before is another."""


@dataclass(frozen=True, slots=True)
class Died:
    """A process that was minded has ended."""

    pid: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A file was open to write and is no more: so a lock ends, with its holder if need be."""

    name: str


@dataclass(frozen=True, slots=True)
class DirectoryChanged:
    """Something in the directory changed; nobody says what."""


@dataclass(frozen=True, slots=True)
class Overflowed:
    """The system lost count, so that anything may have changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The helper says what became of an entry."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, eq=False)
class AnswerEnded:
    """The helper says no more."""

    cause: BaseException | None
    """Why it did not answer to its end."""


@dataclass(frozen=True, slots=True)
class Signalled:
    """This process was sent a signal."""

    number: signal.Signals


Event = Changed | Closed | DirectoryChanged | Overflowed | Answered | AnswerEnded | Signalled | Died


@dataclass(slots=True)
class Inbox:
    """Where other threads and signals leave events for the one thread that works.

    An event that waits already is not left twice. The pipe is readable while one waits. So is what
    tells of the end of a process that is minded: there is one wait for everything.
    """

    reading: int
    writing: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    events: dict[Event, None] = field(default_factory=dict)
    waiting: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    minded: dict[int, host.Death] = field(default_factory=dict)
    """By pid what tells of its end."""

    def __post_init__(self) -> None:
        """Wait for the pipe."""
        self.waiting.register(self.reading, selectors.EVENT_READ)

    def close(self) -> None:
        """Wait for nothing any more."""
        self.mind(())
        self.waiting.close()

    def mind(self, pids: Collection[int]) -> None:
        """Wait for the end of these processes, and of no others; their death is an event.

        A hint and no more: what has ended already, or cannot be waited for (no such call in this
        kernel, no descriptor left), is left to who looks by the clock.
        """
        for pid in self.minded.keys() - set(pids):
            self._leave(pid)
        for pid in [pid for pid in pids if pid not in self.minded]:
            if len(self.minded) >= _MOST_DEATHS:
                break
            with suppress(OSError):
                death = host.death_of(pid)
                self.waiting.register(death, selectors.EVENT_READ, pid)
                self.minded[pid] = death

    def _leave(self, pid: int) -> None:
        death = self.minded.pop(pid)
        self.waiting.unregister(death)
        death.close()

    def post(self, *events: Event) -> None:
        """Leave events, from any thread."""
        with self.lock:
            if not self.events:
                self._wake()
            self.events.update(dict.fromkeys(events))

    def holds(self, events: Collection[Event]) -> bool:
        """Whether one of these waits; none is taken."""
        with self.lock:
            self._hear()
            if self.events:
                self._wake()
            return not self.events.keys().isdisjoint(events)

    def wait(self, seconds: float) -> list[Event]:
        """All that has happened, as soon as something has, or nothing after that many seconds."""
        heard = self.waiting.select(max(0.0, seconds))
        dead = [key.data for key, _ in heard if key.data is not None]
        for pid in dead:
            self._leave(pid)
        with self.lock:
            self._hear()
            events, self.events = list(self.events), {}
        return [*map(Died, dead), *events]

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full of signals: it wakes all the same
            os.write(self.writing, b"\0")

    def _hear(self) -> None:
        """Take the signals out of the pipe, where the interpreter has written their numbers."""
        numbers = b""
        with suppress(BlockingIOError):
            numbers = os.read(self.reading, 65536)
        self.events |= {Signalled(signal.Signals(one)): None for one in set(numbers) - {0}}


@contextmanager
def inbox(*signals: signal.Signals) -> Iterator[Inbox]:
    """An inbox that those signals come to as well, instead of doing what they do by default."""
    reading, writing = os.pipe()  # macOS has no pipe2(2)
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        with closing(Inbox(reading, writing)) as box:
            yield box
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def how_to_watch(directory: str) -> str:
    """INOTIFY where the kernel tells every change of that directory, else POLLING."""
    file_system = host.mount_of(directory, host.mounts() or [])[1]
    return INOTIFY if file_system in _TOLD and not processes.emulated() else POLLING


@dataclass(frozen=True, slots=True)
class Watching:
    """A watch that runs, and what tells it."""

    how: str
    directory: str
    identity: tuple[int, int] | None
    """Device and inode of what is watched."""
    observer: BaseObserver

    def lasts(self) -> bool:
        """False once the directory is another than at the start (mounted, unmounted, replaced)."""
        alive = all(emitter.is_alive() for emitter in self.observer.emitters)
        return alive and _identity(self.directory) == self.identity


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def watching(directory: str, how: str, poll_interval: float, events: Inbox) -> Iterator[Watching]:
    """Watch the directory while inside. `OSError` where that cannot be had (no inotify left)."""
    observer = _observer(how, poll_interval)
    listener = _Overflow(events)
    logger = logging.getLogger("watchdog")
    logger.addHandler(listener)
    try:
        heard: list[type[fs.FileSystemEvent]] = [fs.DirModifiedEvent]
        if how == INOTIFY:
            heard = _NAMED
        observer.schedule(_Poster(events), directory, recursive=False, event_filter=heard)
        identity = _identity(directory)
        observer.start()
        yield Watching(how, directory, identity, observer)
    finally:
        if observer.is_alive():
            observer.stop()
            observer.join()
        logger.removeHandler(listener)


def _observer(how: str, poll_interval: float) -> BaseObserver:
    if how == POLLING:
        return BaseObserver(DirectoryEmitter, timeout=poll_interval)
    from watchdog.observers.inotify import InotifyObserver  # noqa: PLC0415 - Linux only

    # What moves out of the directory, as all that is removed does, would hold back whatever comes
    # after it for half a second, in which watchdog waits for where it goes. Nobody asks that here.
    for module, name in _PAIRING:
        with suppress(ImportError):
            getattr(import_module(f"watchdog.observers.{module}"), name).delay = _PAIRING_SECONDS
    return InotifyObserver()


class _Poster(fs.FileSystemEventHandler):
    def __init__(self, events: Inbox) -> None:
        self._events = events

    def on_any_event(self, event: fs.FileSystemEvent) -> None:
        paths = [path for path in (event.src_path, event.dest_path) if path]
        names = [os.path.basename(os.fsdecode(path)) for path in paths]
        match event:
            case fs.DirModifiedEvent():
                self._events.post(DirectoryChanged())
            case fs.FileCreatedEvent() | fs.DirCreatedEvent():
                self._events.post(*(Changed(name, made=True) for name in names))
            case fs.FileClosedEvent():
                # Who writes to a file here holds it open as a lock, nearly always; without one
                # that is open there is no flock.
                self._events.post(*map(Closed, names))
            case _:
                self._events.post(*map(Changed, names))


class _Overflow(logging.Handler):
    """Hears what watchdog logs: from 7.1 on it tells of an overflow so. The rest is noise."""

    def __init__(self, events: Inbox) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._events.post(Overflowed())


class DirectoryEmitter(EventEmitter):
    """Looks at the directory's own time of change, and at nothing in it, each `timeout` seconds."""

    _seen: tuple[int, int, int] | None = None
    _sure: bool = True

    def on_thread_start(self) -> None:
        """Remember how it looks now."""
        self._seen = self._look()

    def queue_events(self, timeout: float) -> None:
        """Wait so long, and tell whether it has changed since the last look."""
        if self.stopped_event.wait(timeout):
            return
        seen = self._look()
        # A second change within the clock's grain leaves the time as it was: look once more.
        if seen != self._seen or not self._sure:
            self.queue_event(fs.DirModifiedEvent(self.watch.path))
        self._sure = seen is None or seen == self._seen or time.time_ns() - seen[2] > _UNSURE_NS
        self._seen = seen

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.watch.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns
