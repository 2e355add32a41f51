# SPDX-License-Identifier: MIT
"""Reading a build's log as it comes: which known failures, which store paths. Pure.

Builders choose what stands in a log. So memory is bounded (see the limits below), and every step
takes time in proportion to the bytes given, whatever they are.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from storewarden.explain.catalogue import CATALOGUE, MARKS, known, known_without_path
from storewarden.explain.failures import About, Failure, plain, signs
from storewarden.explain.logline import ends_about, message, texts, without_escapes
from storewarden.store.paths import DERIVATION_SUFFIX, NIX32, StoreDir, StorePath

LONGEST_LINE = 256 * 1024
"""Bytes; a longer line is read in pieces of that length."""
MOST_PATHS = 16
"""Of one failure, and of the derivations that failed."""
_MOST_NAMES = 4096
"""Of derivations that the log speaks of."""
_MOST_DOUBTFUL = 256
"""Lines that may be a failure, depending on what comes."""
_LONGEST_SHOWN = 400
_FAILED = signs("cannot build '…'", "builder for '…' failed…", "build of '…' failed…")
_MARKS = tuple(MARKS.union(sign.mark for sign in _FAILED))
_END = re.compile(rb"\r\n|\r|\n")
_DRV = DERIVATION_SUFFIX.encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """A known failure, and where the log tells of it."""

    failure: Failure
    line: str
    """The first line that tells of it, as it stands there; cut if it is very long."""
    number: int
    """Of that line, from 1; a carriage return ends a line too."""
    times: int
    paths: tuple[str, ...]
    """The store paths it is about, full, in the order of the log; at most `MOST_PATHS`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a log tells."""

    seen: tuple[Seen, ...]
    """In the order of the catalogue."""
    failed: tuple[str, ...]
    """The derivations that it says were not built, full paths; at most `MOST_PATHS`."""
    lines: int


@dataclass(slots=True)
class _Sighting:
    line: str
    number: int
    times: int = 0
    paths: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Doubtful:
    failure: Failure
    path: StorePath
    line: str
    number: int


class BuildLog:
    """A log that is being read: `feed` it, then ask what it told."""

    def __init__(self, store_dir: StoreDir) -> None:
        """Read a log of the store with that store directory."""
        self._store_dir = store_dir
        self._path = re.compile(
            re.escape(store_dir.path) + rf"/([{NIX32}]{{32}}-[0-9A-Za-z+\-._?=]{{1,211}})", re.ASCII
        )
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._lines = 0
        self._sightings: dict[str, _Sighting] = {}
        self._doubtful: list[_Doubtful] = []
        self._names: set[str] = set()
        self._failed: dict[str, None] = {}

    def feed(self, chunk: bytes) -> None:
        """Read on; a chunk may end anywhere."""
        # A carriage return at the end may be half of a line end.
        ended = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, -1)) + 1
        if ended:
            self._read(b"".join((*self._rest, chunk[:ended])))
            self._rest, self._rest_size = [], 0
        if len(chunk) > ended:
            self._rest.append(chunk[ended:])
            self._rest_size += len(chunk) - ended
        if self._rest_size > LONGEST_LINE:
            self._read(b"".join(self._rest))
            self._rest, self._rest_size = [], 0

    def reading(self) -> Reading:
        """What was told until now, the line that was not ended included."""
        if self._rest:
            self._read(b"".join(self._rest))
            self._lines += 1
            self._rest, self._rest_size = [], 0
        self._settle()
        seen = (
            Seen(one, found.line, found.number, found.times, tuple(found.paths))
            for one in CATALOGUE
            if (found := self._sightings.get(one.name))
        )
        return Reading(tuple(seen), tuple(self._failed), self._lines)

    def _read(self, block: bytes) -> None:
        """Whole lines. Nearly all have no mark, and are only searched for one."""
        stripped = without_escapes(block)
        lowered = stripped.lower()
        if _DRV in lowered or _telling(lowered):
            for number, line in enumerate(_END.split(stripped), start=self._lines + 1):
                self._read_line(line, number)
        self._lines += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")

    def _read_line(self, line: bytes, number: int) -> None:
        lowered = line.lower()
        telling = _telling(lowered)
        if not telling and _DRV not in lowered:
            return
        for text in texts(line):
            paths = list(islice(self._paths(text), MOST_PATHS))
            self._remember(paths)
            if telling:
                self._look(text, paths, number)

    def _look(self, text: str, paths: list[StorePath], number: int) -> None:
        line = plain(message(text))
        if paths and paths[0].is_derivation and any(sign.fits(line) for sign in _FAILED):
            _keep(self._failed, self._store_dir.join(paths[0].base_name))
        failure = known(line) if paths else known_without_path(line)
        last = not paths or ends_about(text, paths[-1].base_name)
        if failure is not None:
            if failure.about is About.LAST and not last:
                return
            about = paths[failure.about.value] if paths else None
            self._sight(failure, about, text, number)
        elif paths and last and len(self._doubtful) < _MOST_DOUBTFUL:
            for one in CATALOGUE:
                if any(sign.fits(line) for sign in one.own_signs):
                    doubtful = _Doubtful(one, paths[one.about.value], _cut(text), number)
                    self._doubtful.append(doubtful)

    def _paths(self, text: str) -> Iterator[StorePath]:
        for match in self._path.finditer(text):
            # A sentence's end is no part of a name.
            path = StorePath.maybe(match[1].rstrip("."))
            if path is not None:
                yield path

    def _remember(self, paths: Sequence[StorePath]) -> None:
        for path in paths:
            if path.is_derivation and len(self._names) < _MOST_NAMES:
                self._names.add(path.name.removesuffix(DERIVATION_SUFFIX))

    def _sight(self, failure: Failure, path: StorePath | None, text: str, number: int) -> None:
        new = _Sighting(_cut(text), number)
        found = self._sightings.setdefault(failure.name, new)
        found.times += 1
        if path is not None:
            _keep(found.paths, self._store_dir.join(path.base_name))

    def _settle(self) -> None:
        """Only now are all derivations known that the log speaks of."""
        for one in self._doubtful:
            if any(_is_of(one.path.name, name) for name in self._names):
                self._sight(one.failure, one.path, one.line, one.number)
        self._doubtful = []


def _telling(lowered: bytes) -> bool:
    """Whether it has the mark of any sign."""
    return any(mark in lowered for mark in _MARKS)


def _is_of(name: str, derivation: str) -> bool:
    """Whether an output of that name belongs to a derivation of that name."""
    return name == derivation or name.startswith(f"{derivation}-")


def _keep(places: dict[str, None], path: str) -> None:
    if len(places) < MOST_PATHS:
        places.setdefault(path)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
