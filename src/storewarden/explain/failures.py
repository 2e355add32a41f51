# SPDX-License-Identifier: MIT
"""What a known failure is, and how a line of a log is held against it. Pure.

A sign is the whole line in words, `…` being any text: as Nix prints it, in lower case, every
quotation mark as `'`. No regular expression: a line is held against a sign in linear time,
whatever a builder prints.
"""

import re
from dataclasses import dataclass
from enum import Enum

_ANY = "…"
_QUOTES = str.maketrans(dict.fromkeys('"`\u2018\u2019\u201c\u201d', "'"))
_TRACKER = re.compile(r"([\w.-]+/[\w.-]+)#([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sign:
    """The line that gives a failure away: its literal parts, with any text between them."""

    parts: tuple[str, ...]

    def fits(self, line: str) -> bool:
        """Whether a line, already `plain`, is such a line."""
        first, *middle = self.parts
        if not middle:
            return line == first
        if not line.startswith(first):
            return False
        last, at = middle.pop(), len(first)
        for part in middle:
            found = line.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return at + len(last) <= len(line) and line.endswith(last)

    @property
    def mark(self) -> bytes:
        """The longest run of it that every such line has, however it is quoted."""
        return max("'".join(self.parts).split("'"), key=len).encode()


def signs(*texts: str) -> tuple[Sign, ...]:
    """Signs as they are written in the catalogue."""
    return tuple(Sign(tuple(text.split(_ANY))) for text in texts)


def plain(line: str) -> str:
    """A line in the letters in which signs are written."""
    return line.translate(_QUOTES).lower().strip(" .")


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
    """A failure that is known: only what is certain of it, and how to tell the rest."""

    name: str
    """Stable, for programs."""
    title: str
    cause: str
    steps: tuple[Step, ...]
    issues: tuple[str, ...]
    """Where it is known from, as `owner/repository#number`."""
    versions: str
    """Which versions have it, as far as is known."""
    signs: tuple[Sign, ...] = ()
    own_signs: tuple[Sign, ...] = ()
    """Those that count only where the path is named like a derivation of the same log."""
    tell: str = ""
    """How to tell, where several causes fit."""
    about: About = About.FIRST
    needs_path: bool = False
    """Whether it counts only where the line names a store path."""


def issue_url(issue: str) -> str:
    """The address of an issue; GitHub leads on from there if it is a pull request."""
    match = _TRACKER.fullmatch(issue)
    if match is None:
        raise ValueError(f"{issue!r} is not an issue such as NixOS/nix#13703")
    return f"https://github.com/{match[1]}/issues/{match[2]}"
