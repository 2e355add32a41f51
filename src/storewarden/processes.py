# SPDX-License-Identifier: MIT
"""What an ordinary user can see of processes and their kernel. The only file that knows psutil.

That is slow to load and often not needed, so those that always start load this file late.
"""

import os
import platform
import re
from collections.abc import Collection, Hashable
from contextlib import suppress
from dataclasses import dataclass

import psutil

_LONG = 72
_DAEMON = "nix-daemon"
_WORKER = re.compile(r"(?:\S*/)?nix-daemon ([1-9][0-9]*)")
"""nix-daemon.cc puts the pid of its client into a worker's first argument (2.3 to 2.36)."""
_SERVED = re.compile(r"(?:\S*/)?(?:nix-store .*--serve\b|nix-daemon .*--stdio\b)")


@dataclass(frozen=True, slots=True)
class Running:
    """A process as far as it is to be seen; None for what is not."""

    pid: int
    command: str | None = None
    user: str | None = None
    began: float | None = None
    """Unix time."""
    client: int | None = None
    """Of a worker of nix-daemon: the pid of the process that it works for."""
    client_command: str | None = None
    """None also if that process has ended, and its number is free or another's."""
    client_gone: bool = False
    """Whether whom it works for is seen to have ended: the client of a worker, or the ssh that
    `nix-store --serve` or `nix-daemon --stdio` was started by (its parent is then process 1)."""


def processes_of(uids: Collection[int]) -> list[int] | None:
    """Pids that run as one of those uids; None where other users' processes are hidden.

    On Linux with `hidepid`, or in a sandbox, an ordinary user does not see pid 1.
    """
    found = []
    try:
        if not psutil.pid_exists(1) or not _visible(1):
            return None
        for process in psutil.process_iter():
            try:
                if any(uid in uids for uid in process.uids()):
                    # Of a process whose main thread has ended, the others may live on.
                    ended = process.status() == psutil.STATUS_ZOMBIE
                    if not (ended and process.num_threads() <= 1):
                        found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
    except (psutil.Error, OSError):
        return None
    return found


def children_of_this_process(uids: Collection[int]) -> list[int]:
    """Pids of our own children, and theirs, that run as one of those uids now."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if child.uids().effective in uids:
                found.append(child.pid)
    return found


def nix_processes() -> frozenset[tuple[int, float]] | None:
    """The programs of Nix's that run as root: pid and beginning. None where some are hidden."""
    found = set()
    try:
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if process.name().startswith("nix") and process.uids().effective == 0:
                    found.add((process.pid, process.create_time()))
    except (psutil.Error, OSError):
        return None
    return frozenset(found)


def command_of(pid: int) -> str | None:
    """The command of a process in one line, control characters escaped; None if not to be seen."""
    try:
        words = psutil.Process(pid).cmdline() or [psutil.Process(pid).name()]
    except (psutil.Error, OSError):
        return None
    text = " ".join(words).strip().encode("unicode_escape").decode("ascii")
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def running(pid: int) -> Running:
    """What is to be seen of that process; of one that has ended, its number."""
    try:
        process = psutil.Process(pid)
        command = command_of(pid)
        worker = _WORKER.match(command or "")
        client = int(worker[1]) if worker else None
        return Running(
            pid,
            command,
            user=process.username(),
            began=process.create_time(),
            client=client,
            client_command=None if client is None else _older(client, process.create_time()),
            client_gone=_is_gone(client, process.create_time())
            if client is not None
            else bool(_SERVED.match(command or "")) and process.ppid() == 1,
        )
    except (psutil.Error, OSError):
        return Running(pid)


def _older(pid: int, than: float) -> str | None:
    """The command of that process, if it began before that moment."""
    began_then = began(pid)
    return command_of(pid) if began_then is not None and began_then <= than else None


def _is_gone(pid: int, than: float) -> bool:
    """Whether no process that began before that moment has that pid."""
    began_then = began(pid)
    return began_then is not None and began_then > than


def began(pid: int) -> float | None:
    """When that process began, as a Unix time; infinity if it is not there, None if not seen."""
    try:
        return psutil.Process(pid).create_time() if _visible(1) else None
    except psutil.NoSuchProcess:
        return float("inf")
    except (psutil.Error, OSError):
        return None


def identified(pid: int) -> Hashable:
    """What is equal for the same process alone, though its number may be another's later.

    And though the clock be set meanwhile, which moves when it `began`. None where it is not seen.
    """
    with suppress(psutil.Error, OSError):
        return psutil.Process(pid)
    return None


def oldest_daemon() -> float | None:
    """When the longest-running nix-daemon began (Unix time); None if none is seen.

    Not its workers, which live on where it is restarted, nor one that has ended.
    """
    times = []
    try:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() != _DAEMON or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                command = command_of(process.pid)
                if command is not None and _WORKER.match(command) is None:
                    times.append(process.create_time())
    except OSError:
        return None
    return min(times, default=None)


def emulated() -> bool:
    """Whether the kernel is gVisor, which calls itself Linux and names itself here alone."""
    try:
        with open("/proc/cmdline", encoding="utf-8", errors="replace") as file:
            command = file.read()
    except OSError:
        command = ""
    return "gvisor" in " ".join([command, *platform.uname()]).lower()


def _visible(pid: int) -> bool:
    return not os.path.isdir("/proc/self") or os.path.exists(f"/proc/{pid}/status")
