# SPDX-License-Identifier: MIT
r"""A build's log, passed through as it comes and read on the way: known failures, store paths.

Builders choose what stands in a log. So memory is bounded (see the limits below), and every step
takes time in proportion to the bytes given, whatever they are.

A line comes in all the ways in which Nix and its friends dress it up: colours and cursor
movements; `--log-format internal-json` (`@nix {"action":...}`); `name> ` of `-L`, `> ` of "last
log lines", `[1/2 built] ` of the progress bar; `┃` of nix-output-monitor; time and place of
journald, GitHub Actions and BuildKit.
"""

import json
import os
import re
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

from storewarden.explain.failures import About, Failure, catalogue, plain, signs
from storewarden.store.floating import NIX32
from storewarden.store.paths import DERIVATION_SUFFIX, StoreDir, StorePath

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
PIECE = 64 * 1024
"""Bytes read at a time."""
_END = re.compile(rb"\r\n|\r|\n")
_DRV = DERIVATION_SUFFIX.encode()
_ESCAPE = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    rb"|\x1b\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)"  # titles, links
    rb"|\x1b[@-_]"
)
_DRESS = re.compile(
    r"\s+"
    r"|(?:error|warning|error \(ignored\)|unexpected nix daemon error)(?=:):"
    r"|[┃│>]"
    r"|\[[0-9][^\]\[]{0,400}\]"
    r"|[0-9A-Za-z+\-._?=]{1,211}>(?= )"
    r"|cannot build on '[^']{1,300}':"
    r"|build of '[^']{1,300}' on '[^']{1,300}' failed:"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,20}Z"
    r"|#[0-9]{1,6} [0-9]{1,6}\.[0-9]{1,6}"
    r"|[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} [\w.-]{1,64} [\w.-]{1,64}\[[0-9]{1,10}\]:",
    re.ASCII | re.IGNORECASE,
)
_ABSOLUTE = re.compile(r"[\s\"'`\u2018\u201c]/")
_LAYERS = 16
_JSON = b"@nix {"


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
        # Read now: a build such as that of a whole system may replace this program as it runs.
        self._marks = _marks()
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._lines = 0
        self._seen: dict[str, Seen] = {}
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
        seen = [self._seen[one.name] for one in catalogue() if one.name in self._seen]
        return Reading(tuple(seen), tuple(self._failed), self._lines)

    def _read(self, block: bytes) -> None:
        """Whole lines. Nearly all have no mark, and are only searched for one."""
        stripped = _without_escapes(block)
        lowered = stripped.lower()
        if _DRV in lowered or self._has_mark(lowered):
            for number, line in enumerate(_END.split(stripped), start=self._lines + 1):
                self._read_line(line, number)
        self._lines += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")

    def _has_mark(self, lowered: bytes) -> bool:
        """Whether a sign may fit a line of it; it is in lower case."""
        return any(mark in lowered for mark in self._marks)

    def _read_line(self, line: bytes, number: int) -> None:
        lowered = line.lower()
        marked = self._has_mark(lowered)
        if not marked and _DRV not in lowered:
            return
        for text in _texts(line):
            paths = list(islice(self._paths(text), MOST_PATHS))
            self._remember(paths)
            if marked:
                self._look(text, paths, number)

    def _look(self, text: str, paths: list[StorePath], number: int) -> None:
        line = plain(_message(text))
        if paths and paths[0].is_derivation and any(sign.fits(line) for sign in _FAILED):
            _keep(self._failed, self._store_dir.join(paths[0].base_name))
        failures = (one for one in catalogue() if paths or not one.needs_path)
        failure = next((one for one in failures if one.is_told_by(line)), None)
        last = not paths or _ends_about(text, paths[-1].base_name)
        if failure is not None:
            if failure.about is About.LAST and not last:
                return
            self._count(failure, paths[failure.about.value] if paths else None, text, number)
        elif paths and last and len(self._doubtful) < _MOST_DOUBTFUL:
            for one in catalogue():
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

    def _count(self, failure: Failure, path: StorePath | None, text: str, number: int) -> None:
        first = Seen(failure, _cut(text), number, 0, ())
        seen = self._seen.get(failure.name, first)
        paths = dict.fromkeys(seen.paths)
        if path is not None:
            _keep(paths, self._store_dir.join(path.base_name))
        self._seen[failure.name] = replace(seen, times=seen.times + 1, paths=tuple(paths))

    def _settle(self) -> None:
        """Only now are all derivations known that the log speaks of."""
        for one in self._doubtful:
            if any(_is_of(one.path.name, name) for name in self._names):
                self._count(one.failure, one.path, one.line, one.number)
        self._doubtful = []


@cache
def _marks() -> tuple[bytes, ...]:
    """Those without which a line, in lower case, fits no sign; none contains another."""
    every = [sign for one in catalogue() for sign in (*one.signs, *one.own_signs)]
    marks = {sign.mark for sign in (*_FAILED, *every)}
    return tuple(one for one in marks if not any(two in one for two in marks - {one}))


def _is_of(name: str, derivation: str) -> bool:
    """Whether an output of that name belongs to a derivation of that name."""
    return name == derivation or name.startswith(f"{derivation}-")


def _keep(places: dict[str, None], path: str) -> None:
    if len(places) < MOST_PATHS:
        places.setdefault(path)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _without_escapes(block: bytes) -> bytes:
    """The same without what a terminal would take for commands."""
    return _ESCAPE.sub(b"", block) if b"\x1b" in block else block


def _texts(line: bytes) -> Iterator[str]:
    """The lines of text in a line: itself, or what a JSON message of Nix carries."""
    start = line.find(_JSON)
    found = _texts_in(line[start + len(_JSON) - 1 :]) if start in range(64) else None
    if found is None:
        yield line.decode(errors="replace")
        return
    for text in found:
        yield from _without_escapes(text.encode(errors="replace")).decode().splitlines()


def _message(text: str) -> str:
    """What is said, without who says it and when."""
    at = 0
    for _ in range(_LAYERS):
        match = _DRESS.match(text, at)
        if match is None:
            break
        at = match.end()
    return text[at:]


def _ends_about(text: str, name: str) -> bool:
    """Whether no other file stands after that name: then it is what the line's end speaks of."""
    return _ABSOLUTE.search(text.rpartition(name)[2]) is None


def _texts_in(document: bytes) -> list[str] | None:
    """The texts in a JSON message; None where it is none, as when it was cut off."""
    try:
        message = json.loads(document)
    except (ValueError, RecursionError):
        return None
    match message:
        case {"action": "msg", "msg": str(text)} | {"action": "start", "text": str(text)}:
            return [text]
        case {"action": "result", "fields": list(fields)}:
            return [one for one in fields if isinstance(one, str)]
        case _:
            return []


def pass_on(source: int, sink: int | None, feed: Callable[[bytes], None]) -> OSError | None:
    """Read descriptor `source` to its end; the rest as `pass_pieces`. `OSError` if it cannot be."""
    return pass_pieces(lambda: _read(source), sink, feed)


def pass_pieces(
    read: Callable[[], bytes], sink: int | None, feed: Callable[[bytes], None]
) -> OSError | None:
    """Write each piece to `sink` first, then feed it, until `read` gives an empty one.

    Gives what is wrong with `sink`. If its reader has gone, reading ends too, so that whoever
    writes learns of it; after any other error what is left is only read.
    """
    trouble: OSError | None = None
    while piece := read():
        if sink is not None and trouble is None:
            try:
                _write(sink, piece)
            except BrokenPipeError as cause:
                feed(piece)
                return cause
            except OSError as cause:
                trouble = cause
        feed(piece)
    return trouble


def _read(source: int) -> bytes:
    while True:
        try:
            return os.read(source, PIECE)
        except BlockingIOError:
            select.select([source], [], [])


def _write(sink: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:  # another process may have made it so
            select.select([], [sink], [])
