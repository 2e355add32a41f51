# SPDX-License-Identifier: MIT
"""What tells of changes of the store directory. The only file that knows watchdog.

Only the store directory itself is watched, never anything below it, and an event is never
believed: it only says where to look. Where the kernel does not tell of changes for certain, the
directory's own time of change is looked at instead (research: google/gvisor#8089, kata#1505).
"""

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver, EventEmitter

from storewarden import host
from storewarden.daemon.inbox import Inbox

INOTIFY, POLLING = "inotify", "polling"
_TOLD = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""File systems of which inotify tells every change. Others may change from elsewhere (9p, nfs,
virtiofs), or below (overlay), without a word."""
_NAMES_OF: tuple[type[FileSystemEvent], ...] = (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
)
_UNSURE_NS = 2_000_000_000
"""Changes this short after one that was seen may have the same time of change."""


def how_to_watch(directory: str) -> str:
    """INOTIFY where the kernel tells every change of that directory, else POLLING."""
    file_system = host.mount_of(directory, host.mounts() or [])[1]
    return INOTIFY if file_system in _TOLD and not emulated() else POLLING


def emulated() -> bool:
    """Whether the kernel is gVisor, which calls itself Linux and names itself here alone."""
    try:
        with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
            command = file.read()
    except OSError:
        command = ""
    return "gvisor" in " ".join([command, *platform.uname()]).lower()


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
def watching(directory: str, how: str, poll_interval: float, news: Inbox) -> Iterator[Watching]:
    """Watch the directory while inside. `OSError` where that cannot be had (no inotify left)."""
    observer = _observer(how, poll_interval)
    listener = _Overflow(news)
    logger = logging.getLogger("watchdog")
    logger.addHandler(listener)
    try:
        events: list[type[FileSystemEvent]] = [DirModifiedEvent]
        if how == INOTIFY:
            events = [*_NAMES_OF, FileClosedEvent]
        observer.schedule(_Teller(news), directory, recursive=False, event_filter=events)
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

    return InotifyObserver()


class _Teller(FileSystemEventHandler):
    def __init__(self, news: Inbox) -> None:
        self._news = news

    def on_any_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, DirModifiedEvent):
            self._news.tell(changed=True)
            return
        if isinstance(event, FileClosedEvent):
            # Who writes to a file here holds it open as a lock, nearly always: no flock without.
            self._news.tell(closed=[os.path.basename(os.fsdecode(event.src_path))])
            return
        paths = [path for path in (event.src_path, event.dest_path) if path]
        self._news.tell([os.path.basename(os.fsdecode(path)) for path in paths])


class _Overflow(logging.Handler):
    """Hears what watchdog logs: from 7.1 on it tells of an overflow so. The rest is noise."""

    def __init__(self, news: Inbox) -> None:
        super().__init__(logging.WARNING)
        self._news = news

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage():
            self._news.tell(lost=True)


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
            self.queue_event(DirModifiedEvent(self.watch.path))
        self._sure = seen is None or seen == self._seen or time.time_ns() - seen[2] > _UNSURE_NS
        self._seen = seen

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self.watch.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns
