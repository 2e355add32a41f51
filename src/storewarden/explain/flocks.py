# SPDX-License-Identifier: MIT
"""The kernel's table of file locks, `/proc/locks` (proc(5)), which every user may read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flock:
    """A line of the table: a `flock` that is held, or that a process waits for in the kernel."""

    pid: int
    """Who took it. Its children may hold it on after its end."""
    inode: int
    exclusive: bool
    waits: bool


def flocks(table: str = "/proc/locks") -> tuple[Flock, ...] | None:
    """Every flock that is to be seen from here; None where there is no such table.

    It leaves out what processes of other pid namespaces hold. By inode alone: on btrfs the device
    shown is not the one that stat() gives.
    """
    try:
        with open(table, encoding="ascii") as file:
            return tuple(_parsed(file))
    except (OSError, ValueError, IndexError):
        return None


def held_inodes(table: Iterable[Flock]) -> frozenset[int]:
    """The inodes on which somebody holds an exclusive flock."""
    return frozenset(lock.inode for lock in table if lock.exclusive and not lock.waits)


def _parsed(lines: Iterable[str]) -> Iterator[Flock]:
    for line in lines:
        _number, *fields = line.split()
        waits = fields[0] == "->"
        kind, _advisory, mode, pid, place = fields[waits : waits + 5]
        if kind == "FLOCK":
            yield Flock(int(pid), int(place.split(":")[2]), mode == "WRITE", waits)
