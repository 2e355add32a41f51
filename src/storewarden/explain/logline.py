# SPDX-License-Identifier: MIT
r"""One line of a log, in all the ways in which Nix and its friends dress it up. Pure.

Colours and cursor movements; `--log-format internal-json` (`@nix {"action":...}`); `name> ` of
`-L`, `> ` of "last log lines", `[1/2 built] ` of the progress bar; `┃` of nix-output-monitor;
time and place of journald, GitHub Actions and BuildKit.
"""

import json
import re
from collections.abc import Iterator

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


def without_escapes(block: bytes) -> bytes:
    """The same without what a terminal would take for commands."""
    return _ESCAPE.sub(b"", block) if b"\x1b" in block else block


def texts(line: bytes) -> Iterator[str]:
    """The lines of text in a line: itself, or what a JSON message of Nix carries."""
    start = line.find(_JSON)
    found = _carried(line[start + len(_JSON) - 1 :]) if start in range(64) else None
    if found is None:
        yield line.decode(errors="replace")
        return
    for text in found:
        yield from without_escapes(text.encode(errors="replace")).decode().splitlines()


def message(text: str) -> str:
    """What is said, without who says it and when."""
    at = 0
    for _ in range(_LAYERS):
        match = _DRESS.match(text, at)
        if match is None:
            break
        at = match.end()
    return text[at:]


def ends_about(text: str, name: str) -> bool:
    """Whether no other file stands after that name: then it is what the line's end speaks of."""
    return _ABSOLUTE.search(text.rpartition(name)[2]) is None


def _carried(document: bytes) -> list[str] | None:
    """The texts in a JSON message; None where it is none, as when it was cut off."""
    try:
        said = json.loads(document)
    except (ValueError, RecursionError):
        return None
    match said:
        case {"action": "msg", "msg": str(text)}:
            return [text]
        case {"action": "start", "text": str(text)}:
            return [text]
        case {"action": "result", "fields": list(fields)}:
            return [one for one in fields if isinstance(one, str)]
        case _:
            return []
