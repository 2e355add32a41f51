# SPDX-License-Identifier: MIT
"""Which processes use a place, seen as Nix's collector sees runtime roots: in `/proc`.

Read in local-store gc.cc `findRuntimeRoots` (2.8 to 2.34): exe, cwd, fd, maps and environ of every
process. Only root may look into the processes of others, so the ones not looked into are counted.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

NAME_CHARACTERS = rb"0-9A-Za-z+\-._?="
_LINKS = (("exe", "runs a program from it"), ("cwd", "works in it"), ("root", "has its root in it"))


@dataclass(frozen=True, slots=True)
class Use:
    """A process and the ways in which it uses a place."""

    pid: int
    ways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uses:
    """All uses that are to be seen."""

    seen: tuple[Use, ...]
    unseen: int | None
    """How many processes could not be looked into; None where there may be any number."""


def uses_of(place: str, thing: tuple[int, int] | None = None, proc: str = "/proc") -> Uses:
    """The processes that use what lies at `place`; this one is left out.

    `thing` is device and inode of it: a sandboxed builder's root has another name there.
    """
    found, unseen = [], 0
    try:
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
        os.stat(f"{proc}/1/status")
    except OSError:
        return Uses((), None)
    for pid in pids:
        if pid == os.getpid():
            continue
        ways: dict[str, None] = {}
        try:
            ways.update((way, None) for way in _ways(f"{proc}/{pid}", os.fsencode(place), thing))
        except PermissionError:
            unseen += 1
        except OSError:
            continue  # it ended meanwhile
        if ways:
            found.append(Use(pid, tuple(ways)))
    return Uses(tuple(found), unseen)


def _ways(process: str, place: bytes, thing: tuple[int, int] | None) -> Iterator[str]:
    named = re.compile(re.escape(place) + rb"(?![" + NAME_CHARACTERS + rb"])")
    for link, way in _LINKS:
        if _leads(f"{process}/{link}", named) or (
            link != "exe" and _is(f"{process}/{link}", thing)
        ):
            yield way
    for number in os.listdir(f"{process}/fd"):
        if _leads(f"{process}/fd/{number}", named):
            yield "has files in it open"
    if named.search(_read(f"{process}/maps")):
        yield "has files of it mapped"
    for variable in _read(f"{process}/environ").split(b"\0"):
        if named.search(variable):
            name = os.fsdecode(variable.partition(b"=")[0])
            yield f"has it in its environment ({name})"


def _leads(link: str, named: re.Pattern[bytes]) -> bool:
    try:
        return named.match(os.readlink(os.fsencode(link))) is not None
    except FileNotFoundError:
        return False  # a kernel thread has no program; a file was closed


def _is(link: str, thing: tuple[int, int] | None) -> bool:
    try:
        found = os.stat(link)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == thing


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
