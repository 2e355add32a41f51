# SPDX-License-Identifier: MIT
"""What setup does, in lines for people and as JSON."""

import json
from collections.abc import Iterable, Iterator

from storewarden.readable import PLAIN, Mark, Style
from storewarden.setup.code import CODE
from storewarden.setup.files import Link
from storewarden.setup.plan import Keep, Remove, RemoveDirectory, Run, Step, Write

_VERSION = 1


def lines(steps: Iterable[Step], style: Style = PLAIN) -> Iterator[str]:
    """A line for each step as it comes; the many files of one copy of the code have one line."""
    last = ""
    for step in steps:
        line = _line(step, style)
        if line != last:
            yield line
        last = line


def _line(step: Step, style: Style) -> str:
    match step:
        case Write(Link() as link, state):
            return f"link    {style.mark(Mark.NAME, link.path)} -> {link.target} ({state})"
        case Write(item, state):
            return f"write   {style.mark(Mark.NAME, _whole(item.path))} ({state})"
        case Remove(path) | RemoveDirectory(path):
            return f"remove  {style.mark(Mark.NAME, _whole(path))}"
        case Run(words):
            return f"run     {style.mark(Mark.NAME, ' '.join(words))}"
        case Keep(path, why):
            return f"{style.mark(Mark.KEPT, 'keep')}    {style.mark(Mark.NAME, path)}: {why}"


def _whole(path: str) -> str:
    if not path.startswith(f"{CODE}/"):
        return path
    return f"{CODE}/{path.removeprefix(f'{CODE}/').split('/')[0]}/"


def document(steps: Iterable[Step], why: str, *, dry_run: bool) -> str:
    """All of it as one JSON object; `why` tells what the services run."""
    told = [_object(step) for step in steps]
    whole = {"version": _VERSION, "dry-run": dry_run, "program": why, "steps": told}
    return json.dumps(whole, indent=2)


def _object(step: Step) -> dict[str, object]:
    match step:
        case Write(Link() as link, state):
            return {"do": "link", "path": link.path, "target": link.target, "was": str(state)}
        case Write(item, state):
            return {"do": "write", "path": item.path, "sha256": item.digest(), "was": str(state)}
        case Remove(path):
            return {"do": "remove", "path": path}
        case RemoveDirectory(path):
            return {"do": "remove-directory", "path": path}
        case Run(words):
            return {"do": "run", "words": list(words)}
        case Keep(path, why):
            return {"do": "keep", "path": path, "why": why}
