# SPDX-License-Identifier: MIT
"""Real texts of real failures, as their reporters quoted them, and all the ways to dress them up.

`logs/known.txt` and `logs/unknown.txt`: `%% name path` or `%% what it is`, where it is from, text.
In the latter `maybe: ` comes before what may be a failure, and is told as no more than that.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storewarden.explain.buildlog import BuildLog, Reading
from storewarden.store.paths import StoreDir

STORE = StoreDir("/nix/store")
_LOGS = Path(__file__).parent / "logs"
_MAYBE = "maybe: "
_BUILDERS = {"bar-with-logs", "last log lines"}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A text, where it was quoted, and what it should be taken for."""

    name: str
    about: str
    """The store path that it is about; empty for none."""
    source: str
    text: str

    def __str__(self) -> str:
        """A name for a test."""
        return f"{self.name}, {self.source.rpartition('github.com/')[2]}"


def known() -> list[Quoted]:
    """Texts of known failures; `name` is that of the failure."""
    return _read("known.txt")


def unlike() -> list[tuple[Quoted, str]]:
    """Texts that look like one and are none, and how to dress them; `name` is what they are."""
    return [pair for pair in _unknown() if not pair[0].name.startswith(_MAYBE)]


def possible() -> list[tuple[Quoted, str]]:
    """Texts that may be one, and how to dress them."""
    return [pair for pair in _unknown() if pair[0].name.startswith(_MAYBE)]


def _unknown() -> list[tuple[Quoted, str]]:
    """A builder's log has no lines of another builder's in it."""
    return [
        (one, dress)
        for one in _read("unknown.txt")
        for dress in DRESSES
        if not (dress in _BUILDERS and re.search(r"^ *[\w.-]*> ", one.text, re.MULTILINE))
    ]


def _read(name: str) -> list[Quoted]:
    records = (_LOGS / name).read_text().removeprefix("%% ").split("\n%% ")
    found = []
    for record in records:
        head, source, text = record.split("\n", 2)
        what, _, path = head.partition(" /")
        found.append(Quoted(what, f"/{path}" if path else "", source, f"{text}\n"))
    return found


def reading(log: bytes) -> Reading:
    """What a log tells, read in one piece."""
    reader = BuildLog(STORE)
    reader.feed(log)
    return reader.reading()


def _each_line(dressed: Callable[[str], str]) -> Callable[[str], bytes]:
    return lambda text: "".join(f"{dressed(line)}\n" for line in text.splitlines()).encode()


def _coloured(line: str) -> str:
    line = re.sub(r"(error|warning):", "\x1b[31;1m\\1:\x1b[0m", line)
    line = re.sub(r"(?<=['\"])(/[^'\"]+)(?=['\"])", "\x1b[35;1m\\1\x1b[0m", line)
    return f"\r\x1b[K{line}\x1b[0m"


def _said(line: str) -> str:
    said = {"action": "msg", "level": 0, "msg": _coloured(line).removeprefix("\r")}
    return f"@nix {json.dumps(said)}"


def _built(line: str) -> str:
    return f"@nix {json.dumps({'action': 'result', 'fields': [line], 'id': 1, 'type': 101})}"


def _as_one_message(text: str) -> bytes:
    return f"@nix {json.dumps({'action': 'msg', 'level': 0, 'msg': text})}\n".encode()


DRESSES: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "without a last line end": lambda text: text.rstrip("\n").encode(),
    "with carriage returns": lambda text: text.replace("\n", "\r\n").encode(),
    "coloured": _each_line(_coloured),
    "internal-json, messages": _each_line(_said),
    "internal-json, build log": _each_line(_built),
    "internal-json, one message": _as_one_message,
    "bar-with-logs": _each_line(lambda line: f"hello-2.12> {line}"),
    "last log lines": _each_line(lambda line: f"       > {line}"),
    "nix-output-monitor": _each_line(lambda line: f"\x1b[1m┃ \x1b[0m{_coloured(line)}"),
    "progress bar": _each_line(lambda line: f"[1/0/9 built, 3/96 copied (1.0 GiB)] {line}"),
    "GitHub Actions": _each_line(lambda line: f"2024-09-10T10:14:05.8125130Z {line}"),
    "journal": _each_line(lambda line: f"Nov 08 20:17:44 host nix-daemon[16111]: {line}"),
    "remote builder": _each_line(lambda line: f"cannot build on 'ssh-ng://far': {line}"),
    "after a page of other text": lambda text: b"checking for gcc... yes\n" * 4000 + text.encode(),
}
