# SPDX-License-Identifier: MIT
r"""A build's log, passed through as it comes and read on the way: known failures, store paths.

Builders choose what stands in a log. So memory is bounded (see the limits below), and every step
takes time in proportion to the bytes given, whatever they are.

A line comes in all the ways in which Nix and its friends dress it up: colours and cursor
movements; `--log-format internal-json` (`@nix {"action":...}`); `name> ` of `-L`, `> ` of "last
log lines", `[1/2 built] ` of the progress bar; `┃` of nix-output-monitor; `│` of devenv, which
breaks lines; colmena, deploy-rs, Hydra; time and place of journald, CI and BuildKit.

A text is a failure only where it is the failure. Who says it matters: Nix, or a builder, whose
tests print anything. So does what comes after it: another error, or the verdict of a test.
"""

import json
import os
import re
import select
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache, lru_cache
from itertools import islice

from storewarden.explain.failures import (
    PATH,
    About,
    Failure,
    Sign,
    catalogue,
    fits,
    plain,
    plainly_quoted,
    sayings,
)
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
    r"|(?P<aside>warning|error \(ignored\))(?=:):"
    r"|(?P<error>error|unexpected nix daemon error)(?=:):"
    r"|(?P<tail>>)"
    r"|(?P<bar>│)"
    r"|[┃├╰─▶\u00d7•🚀❌✖⚠\u2139\ufe0f]"
    r"|\[(?:[0-9][^\]\[]{0,400}|[\w.-]{1,64} ?)\]"
    r"|(?:error|info|warn|debug|notice)(?= +error:)"
    r"|failed to [a-z `'.-]{1,80}:(?= +error:)"
    r"|##\[error\]"
    r"|std(?:err|out)[):]"
    r"|(?P<builder>[0-9A-Za-z+\-._?=]{1,211})>(?= )"
    r"|[0-9A-Za-z+\-._]{1,64} +\|(?= )"
    r"|cannot build on '[^']{1,300}':"
    r"|cannot open connection to remote store '[^']{1,300}':"
    r"|build of '[^']{1,300}' on '[^']{1,300}' failed:"
    r"|(?:possibly )?transient failure building '[^']{1,300}' on '[^']{1,300}':"
    r"|(?:while setting up the build environment|reason|worker error|hydra-[a-z-]{1,30}):"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]{8,20}(?:Z|[+-][0-9:]{4,6})?(?: [0-9]{2}[OE][+ ])?"
    r"|#[0-9]{1,6} [0-9]{1,6}\.[0-9]{1,6}"
    r"|[0-9]{1,6}\.[0-9]{2,3}(?= )"
    r"|[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} (?=[\w.-]{1,64} [\w.-]{1,64}\[)"
    r"|(?:[\w.-]{1,64} )?[\w.-]{1,64}\[[0-9]{1,10}\]:",
    re.ASCII | re.IGNORECASE,
)
_ABSOLUTE = re.compile(r"[\s\"'`\u2018\u201c]/")
_LAYERS = 20
_JSON = b"@nix {"
_BAR = "│".encode()
_PHASE = "running phase: "
_INTERRUPTED = "interrupted by the user"
_LONGEST_WRAPPED = 2000
_SOON = 200
"""Lines: after more of them a builder has gone on, and what it said is not why it ended."""
_NEXT = 3
"""Lines: among these an error that names its path by a line of its own does."""
_STILL = 20
"""Lines: after more of them a wait may be over."""
_MOST_SIGHTINGS = 512


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
    certain: bool
    """Whether it is why something failed here; else it only may be."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a log tells."""

    seen: tuple[Seen, ...]
    """What is certain and then what is possible, each in the order of the catalogue."""
    failed: tuple[str, ...]
    """The derivations that it says were not built, full paths; at most `MOST_PATHS`."""
    lines: int

    @property
    def known(self) -> tuple[Seen, ...]:
        """What is certain."""
        return tuple(seen for seen in self.seen if seen.certain)


@dataclass(frozen=True, slots=True)
class _Said:
    """A line without its dress, and who says it."""

    text: str
    """For comparing: quoted as ASCII does."""
    builder: str = ""
    """`hello` of a builder's line, `>hello` of the end of its log; empty: Nix, or nobody says."""
    aside: bool = False
    error: bool = False
    bar: bool = False


class _Way(Enum):
    """Who says something so."""

    NIX = "signs"
    ANY = "any-signs"
    OWN = "own-signs"


@dataclass(frozen=True, slots=True, order=True)
class _Told:
    """A sign of a failure; in the order in which they are looked at."""

    place: tuple[bool, int, int]
    """What counts only for a path of the log's own comes last; then as in the catalogue."""
    failure: Failure = field(compare=False)
    way: _Way = field(compare=False)
    sign: Sign = field(compare=False)


@dataclass(slots=True)
class _Sighting:
    """A failure as one speaker tells of it."""

    failure: Failure
    builder: str
    by_any: bool
    """Whether any program says it so, and not Nix alone."""
    line: str
    number: int
    last: int = 0
    turn: int = 0
    times: int = 0
    aside: bool = True
    tested: bool = True
    """Whether it came from tests, every time."""
    paths: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Heard:
    """A line that tells of a failure."""

    told: _Told
    path: StorePath | None
    said: _Said
    line: str
    number: int
    turn: int
    tested: bool


class BuildLog:
    """A log that is being read: `feed` it, then ask what it told."""

    def __init__(self, store_dir: StoreDir) -> None:
        """Read a log of the store with that store directory."""
        self._store_dir = store_dir
        path = re.escape(store_dir.path) + rf"/([{NIX32}]{{32}}-[0-9A-Za-z+\-._?=]{{1,211}})"
        self._path = re.compile(path, re.ASCII)
        self._bare = re.compile(path + r"(?![/0-9A-Za-z+\-._?=])", re.ASCII)
        # Read now: a build such as that of a whole system may replace this program as it runs.
        self._marks = _marks()
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._lines = 0
        self._sightings: dict[tuple[str, str, bool], _Sighting] = {}
        self._doubtful: list[_Heard] = []
        self._names: set[str] = set()
        self._failed: dict[str, None] = {}
        self._blamed: set[str] = set()
        """Names of derivations of which Nix itself says that they failed."""
        self._last_failed = ""
        self._turn = 0
        """Counts what was looked at: one line of JSON may hold several of text."""
        self._errors: dict[str, int] = {}
        """When each last told of an error that is not known."""
        self._ended: dict[str, int] = {}
        """When each last told of any error, but for an interrupt."""
        self._watched: dict[str, int] = {}
        """Builders that told of a failure, with when a test last gave a verdict since."""
        self._testing: set[str] = set()
        self._wrapped = ""
        self._unnamed: _Sighting | None = None
        """What one of the next lines names the path of."""
        self._unnamed_lines = 0
        """So many of them are still to come."""

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
        standing: dict[tuple[str, bool], list[_Sighting]] = {}
        for one in self._sightings.values():
            certain = self._is_certain(one)
            if certain is not None:
                standing.setdefault((one.failure.name, certain), []).append(one)
        seen = []
        for certain in (True, False):
            for failure in catalogue():
                found = standing.get((failure.name, certain))
                if found and (certain or (failure.name, True) not in standing):
                    seen.append(_merged(failure, found, certain=certain))
        return Reading(tuple(seen), tuple(self._failed), self._lines)

    def _read(self, block: bytes) -> None:
        """Whole lines. Nearly all have no mark, and are only searched for one."""
        lowered = _without_escapes(block).lower()
        marks = [mark for mark in self._marks if mark in lowered]
        if marks or self._watched:
            marks += [mark for mark in _verdict_marks() if mark in lowered]
        if marks or self._unnamed or (_DRV in lowered and len(self._names) < _MOST_NAMES):
            for number, line in enumerate(_END.split(block), start=self._lines + 1):
                self._read_line(_without_escapes(line), number, marks)
        elif lowered.strip():
            self._wrapped = ""
        self._lines += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")

    def _read_line(self, line: bytes, number: int, marks: Sequence[bytes]) -> None:
        lowered = line.lower()
        found = [mark for mark in marks if mark in lowered]
        if not self._watched and _verdict_marks().issuperset(found):
            found = []
        named = self._unnamed or (_DRV in lowered and len(self._names) < _MOST_NAMES)
        if not found and not named:
            if self._wrapped and line.strip():
                self._wrapped = ""
            return
        escaped = b"\\u" in line
        for text in _texts(line):
            paths = list(islice(self._paths(text), MOST_PATHS))
            self._remember(paths)
            if self._unnamed is not None:
                self._name(self._unnamed, text, paths)
            marked = self._marks_in(text) if escaped else found
            if marked:
                said = self._undressed(text)
                if said.bar:
                    said, text_of = self._unwrapped(said)
                    if len(text_of) > len(text):
                        marked = self._marks_in(text_of)
                else:
                    self._wrapped, text_of = said.text.rstrip() if said.error else "", text
                if text_of is not text:
                    paths = list(islice(self._paths(text_of), MOST_PATHS))
                self._look(said, text_of, paths, text, number, marked)

    def _name(self, one: _Sighting, text: str, paths: Sequence[StorePath]) -> None:
        """Take a failure's path from a line soon after the one that tells of it."""
        sign = one.failure.then_about
        if paths and sign is not None and sign.fits(plain(self._undressed(text).text)):
            _keep(one.paths, self._store_dir.join(paths[0].base_name))
            self._unnamed_lines = 0
        self._unnamed_lines -= 1
        if self._unnamed_lines <= 0:
            self._unnamed = None

    def _marks_in(self, text: str) -> list[bytes]:
        lowered = text.lower().encode(errors="replace")
        return [mark for mark in (*self._marks, *_verdict_marks()) if mark in lowered]

    def _undressed(self, text: str) -> _Said:
        """What is said, and who says it."""
        plain_quotes = plainly_quoted(text)
        at, layers, name = 0, set(), ""
        for _ in range(_LAYERS):
            match = _DRESS.match(plain_quotes, at)
            if match is None:
                break
            at = match.end()
            layers.add(match.lastgroup)
            name = name or match["builder"] or ("" if match["tail"] is None else ">")
        if name == ">":
            name += self._last_failed
        return _Said(plain_quotes[at:], name, "aside" in layers, "error" in layers, "bar" in layers)

    def _unwrapped(self, said: _Said) -> tuple[_Said, str]:
        """Devenv breaks an error's lines at the terminal's width: the whole of it until here."""
        before = "" if said.error or len(self._wrapped) > _LONGEST_WRAPPED else self._wrapped
        glue = "" if not before or before.endswith(("-", "/")) else " "
        text = f"{before}{glue}{said.text.rstrip()}"
        self._wrapped = text if said.error or before else ""
        return replace(said, text=text, error=bool(self._wrapped)), text

    def _look(
        self,
        said: _Said,
        whole: str,
        paths: Sequence[StorePath],
        text: str,
        number: int,
        marks: Sequence[bytes],
    ) -> None:
        self._turn += 1
        line = plain(said.text)
        failed = fits("failed", line) if _failed_marks().intersection(marks) else False
        tested = said.builder in self._testing or (
            not _verdict_marks().isdisjoint(marks) and fits("verdicts", line)
        )
        if failed:
            self._blame(paths, said)
        if line.startswith(_PHASE):
            (self._testing.add if "check" in line else self._testing.discard)(said.builder)
        told = self._told_by(said, line, marks, paths)
        if told is not None:
            last = not paths or _ends_about(whole, paths[-1].base_name)
            path = paths[told.failure.about.value] if paths else None
            heard = _Heard(told, path, said, _cut(text), number, self._turn, tested)
            if told.way is not _Way.OWN and (last or told.failure.about is not About.LAST):
                self._count(heard)
            elif told.way is _Way.OWN and last and len(self._doubtful) < _MOST_DOUBTFUL:
                self._watched.setdefault(said.builder, 0)
                self._doubtful.append(heard)
            return
        watched = said.builder in self._watched
        follows = failed or ((said.error or watched) and fits("aftermath", line))
        ended = said.error and line and not said.aside and line != _INTERRUPTED
        if ended and (said.builder in self._ended or len(self._ended) < _MOST_NAMES):
            self._ended[said.builder] = self._turn
            if not follows:
                self._errors[said.builder] = self._turn
        if watched and (tested or (not follows and fits("errors", line))):
            self._watched[said.builder] = self._turn

    def _told_by(
        self, said: _Said, line: str, marks: Sequence[bytes], paths: Sequence[StorePath]
    ) -> _Told | None:
        """The first failure in the catalogue that the line tells of."""
        bare = ""
        for told in _by_marks(tuple(marks)):
            if told.failure.needs_path and not paths:
                continue
            if told.sign.has_path:
                bare = bare or plain(self._bare.sub(PATH, said.text))
            if told.sign.fits(bare if told.sign.has_path else line):
                return told
        return None

    def _blame(self, paths: Sequence[StorePath], said: _Said) -> None:
        if not paths or not paths[0].is_derivation:
            return
        _keep(self._failed, self._store_dir.join(paths[0].base_name))
        if not said.builder and len(self._blamed) < _MOST_NAMES:
            self._last_failed = paths[0].name.removesuffix(DERIVATION_SUFFIX)
            self._blamed.add(self._last_failed)

    def _paths(self, text: str) -> Iterator[StorePath]:
        for match in self._path.finditer(text):
            # A sentence's end is no part of a name.
            path = StorePath.maybe(match[1].rstrip("."))
            if path is not None:
                yield path

    def _remember(self, paths: Iterable[StorePath]) -> None:
        for path in paths:
            if path.is_derivation and len(self._names) < _MOST_NAMES:
                self._names.add(path.name.removesuffix(DERIVATION_SUFFIX))

    def _count(self, heard: _Heard) -> None:
        told, said = heard.told, heard.said
        # An error that Nix tells of at its own place is Nix's, whoever else may say the same.
        by_any = told.way is not _Way.NIX and not (said.error and not said.builder)
        key = (told.failure.name, said.builder, by_any)
        seen = self._sightings.get(key)
        if seen is None:
            if len(self._sightings) >= _MOST_SIGHTINGS:
                return
            seen = _Sighting(told.failure, said.builder, by_any, heard.line, heard.number)
            self._sightings[key] = seen
        seen.times += 1
        seen.last, seen.turn = heard.number, heard.turn
        seen.aside &= said.aside
        seen.tested &= heard.tested
        if told.failure.then_about is not None:
            self._unnamed, self._unnamed_lines = seen, _NEXT
        if heard.path is not None:
            _keep(seen.paths, self._store_dir.join(heard.path.base_name))
        if by_any:
            self._watched.setdefault(said.builder, 0)

    def _settle(self) -> None:
        """Only now are all derivations known that the log speaks of."""
        for one in self._doubtful:
            name = one.path.name if one.path else ""
            if any(_is_of(name, derivation) for derivation in self._names):
                self._count(one)
        self._doubtful = []

    def _is_certain(self, one: _Sighting) -> bool | None:
        """Whether it is why something failed; None: it is not."""
        if one.builder and self._blamed and one.builder.removeprefix(">") not in self._blamed:
            return None
        error = max(self._errors.get("", 0), 0 if one.by_any else self._errors.get(one.builder, 0))
        if one.failure.passes or one.aside:
            known = (
                other.turn
                for other in self._sightings.values()
                if not (other.failure.passes or other.aside) and other.failure is not one.failure
            )
            if one.failure.passes:
                error = max(self._ended.get("", 0), self._ended.get(one.builder, 0))
            if max((error, *known)) > one.turn:
                return None if one.failure.passes else False
            return not one.failure.passes or self._lines - one.last <= _STILL
        if error > one.turn:
            return False
        if one.by_any:
            over = self._lines - one.last > _SOON or self._watched.get(one.builder, 0) > one.turn
            return not (one.tested or over)
        # Nix tells of its own failures at its own place: this one stands in a builder's log.
        return not (one.builder and self._blamed)


def _merged(failure: Failure, found: Sequence[_Sighting], *, certain: bool) -> Seen:
    first = min(found, key=lambda one: one.number)
    paths: dict[str, None] = {}
    for one in found:
        for path in one.paths:
            _keep(paths, path)
    times = sum(one.times for one in found)
    return Seen(failure, first.line, first.number, times, tuple(paths), certain)


def _every_sign() -> Iterator[_Told]:
    for number, one in enumerate(catalogue()):
        kinds = zip(_Way, (one.signs, one.any_signs, one.own_signs), strict=True)
        every = [(way, sign) for way, signs in kinds for sign in signs]
        for place, (way, sign) in enumerate(every):
            yield _Told((way is _Way.OWN, number, place), one, way, sign)


@cache
def _marks() -> tuple[bytes, ...]:
    """Those without which a line, in lower case, is nothing to look at; none contains another."""
    marks = {told.sign.mark for told in _every_sign()}
    marks |= {sign.mark for sign in sayings()["failed"]}
    marks |= {b"error:", _PHASE.encode(), _BAR}
    return tuple(one for one in marks if not any(two in one for two in marks - {one}))


@cache
def _by_mark() -> Mapping[bytes, tuple[_Told, ...]]:
    """The signs that a line with that mark may fit. A line with a sign's mark has one of these."""
    every = tuple(_every_sign())
    return {mark: tuple(told for told in every if mark in told.sign.mark) for mark in _marks()}


@lru_cache(1024)
def _by_marks(marks: tuple[bytes, ...]) -> tuple[_Told, ...]:
    return tuple(sorted({one for mark in marks for one in _by_mark().get(mark, ())}))


@cache
def _failed_marks() -> frozenset[bytes]:
    """Of what is in `_marks`, that without which a line does not say that a build failed."""
    wanted = [sign.mark for sign in sayings()["failed"]]
    return frozenset(mark for mark in _marks() if any(mark in one for one in wanted))


@cache
def _verdict_marks() -> frozenset[bytes]:
    return frozenset(sign.mark for sign in sayings()["verdicts"])


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
