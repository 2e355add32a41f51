# SPDX-License-Identifier: MIT
"""The failures that `explain` recognizes in a log: read from failures.toml, which describes them.

A sign is a whole line, `…` being any text and `PATH` a store path with nothing below it: as Nix
prints it, in lower case. Quotation marks do not count: every version sets them in its own way, or
none. No regular expression: a line is compared with a sign in linear time, whatever a builder
prints.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, TypeVar

_T = TypeVar("_T")
_ANY = "…"
_QUOTES = str.maketrans(dict.fromkeys("\u2018\u2019\u201c\u201d", "'"))
PATH = "\0"
"""Stands in a line for a store path with nothing below it."""
_TRACKER = re.compile(r"([\w.-]+/[\w.-]+)#([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sign:
    """The line that gives a failure away: its literal parts, with any text between them."""

    parts: tuple[str, ...]
    mark: bytes = field(default=b"", compare=False)
    """The longest run of it that every such line has, however it is quoted."""
    has_path: bool = field(default=False, compare=False)
    """Whether it is compared with lines in which `PATH` stands for a store path."""

    def fits(self, line: str) -> bool:
        """Whether a line, already `plain`, is such a line."""
        first, last = self.parts[0], self.parts[-1]
        if not line.startswith(first) or not line.endswith(last):
            return False
        if len(self.parts) == 1:
            return line == first
        at = len(first)
        for part in self.parts[1:-1]:
            found = line.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return at + len(last) <= len(line)


def signs(*texts: str) -> tuple[Sign, ...]:
    """Signs as they are written in failures.toml."""
    return tuple(
        Sign(
            tuple(part.replace("PATH", PATH) for part in _unquoted(text).split(_ANY)),
            max(re.split(f"'|PATH|{_ANY}", text), key=len).encode(),
            "PATH" in text,
        )
        for text in texts
    )


def plainly_quoted(text: str) -> str:
    """The same with each quotation mark as ASCII's; most have no other, and that is told soon."""
    some = text if text.isascii() else text.translate(_QUOTES)
    return some.replace('"', "'").replace("`", "'")


def _unquoted(text: str) -> str:
    return plainly_quoted(text).replace("'", "")


def plain(line: str) -> str:
    """A line in the letters in which signs are compared."""
    return _unquoted(line).lower().strip(" .")


class About(Enum):
    """Which of the store paths in the line a failure is about."""

    FIRST = 0
    LAST = -1


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, in words, with the command if there is one; `PATHS` in it is filled in."""

    words: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure; what each field means stands at the top of failures.toml."""

    name: str
    title: str
    cause: str
    steps: tuple[Step, ...]
    issues: tuple[str, ...]
    versions: str
    signs: tuple[Sign, ...] = ()
    any_signs: tuple[Sign, ...] = ()
    own_signs: tuple[Sign, ...] = ()
    tell: str = ""
    about: About = About.FIRST
    then_about: Sign | None = None
    needs_path: bool = False
    in_the_way: bool = False
    passes: bool = False
    by_itself: str = ""


@cache
def _document() -> str:
    """Read when it is first needed."""
    place = os.path.join(os.path.dirname(__file__), "failures.toml")
    with open(place, encoding="utf-8") as file:
        return file.read()


@cache
def catalogue() -> tuple[Failure, ...]:
    """All failures, in the order in which they are told."""
    return read_failures(_document())


@cache
def sayings() -> Mapping[str, tuple[Sign, ...]]:
    """What else is looked for in a log, by the names that it has in failures.toml."""
    import tomllib  # noqa: PLC0415 - most commands read no log

    return {name: signs(*texts) for name, texts in tomllib.loads(_document())["said"].items()}


def fits(name: str, line: str) -> bool:
    """Whether a line, already `plain`, is one of those sayings."""
    return any(sign.fits(line) for sign in sayings()[name])


def read_failures(document: str) -> tuple[Failure, ...]:
    """The failures in a TOML document, in its order.

    `ValueError` or `TypeError` if a key is unknown, missing, or of another type than it must be.
    """
    import tomllib  # noqa: PLC0415 - most commands read no log

    tables = tomllib.loads(document)
    tables.pop("said", None)
    rows, steps = (_of(dict, tables.pop(key, {})) for key in ("failure", "step"))
    if tables:
        raise ValueError(f"neither a failure nor a step: {', '.join(tables)}")
    shared = {name: _step(row) for name, row in steps.items()}
    return tuple(_failure(name, _of(dict, row), shared) for name, row in rows.items())


def _failure(name: str, row: dict[str, Any], shared: Mapping[str, Step]) -> Failure:
    readers: dict[str, Callable[[object], Any]] = {
        **dict.fromkeys(("title", "cause", "tell", "versions", "by-itself"), _text),
        **dict.fromkeys(("signs", "any-signs", "own-signs"), lambda value: signs(*_texts(value))),
        "steps": lambda value: tuple(
            shared[one] if isinstance(one, str) else _step(one) for one in _of(list, value)
        ),
        "issues": _texts,
        "then-about": lambda value: signs(_text(value))[0],
        "about": lambda value: About[_of(str, value).upper()],
        **dict.fromkeys(("needs-path", "in-the-way", "passes"), lambda value: _of(bool, value)),
    }
    try:
        fields = {key.replace("-", "_"): readers[key](value) for key, value in row.items()}
        return Failure(name, **fields)
    except (KeyError, TypeError, ValueError) as cause:
        raise ValueError(f"failure.{name}: {cause!r}") from cause


def _step(row: object) -> Step:
    return Step(**{key: _text(value) for key, value in _of(dict, row).items()})


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(_text, _of(list, value)))


def _text(value: object) -> str:
    return _of(str, value).strip().replace("\n", " ")


def _of(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.60} stands where a {kind.__name__} is due")
    return value


def issue_url(issue: str) -> str:
    """The address of an issue; GitHub leads on from there if it is a pull request."""
    match = _TRACKER.fullmatch(issue)
    if match is None:
        raise ValueError(f"{issue!r} is not an issue such as NixOS/nix#13703")
    return f"https://github.com/{match[1]}/issues/{match[2]}"
