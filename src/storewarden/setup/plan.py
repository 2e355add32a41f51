# SPDX-License-Identifier: MIT
"""From what should be and what is to the steps between; each taken, told in a line, and as JSON."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby

from storewarden.config import MANIFEST
from storewarden.readable import PLAIN, Mark, Style, json_text
from storewarden.setup.code import CODE, PATH, execute
from storewarden.setup.files import (
    Item,
    Link,
    Manifest,
    SetupError,
    State,
    digest_at,
    missing_directories,
    put,
    settled,
    state_at,
    take_away,
)

_SECONDS = 900
"""A service is ready only after its first sweep."""
_PAUSE = 0.5
_MOST_SAID = 2000


@dataclass(frozen=True, slots=True)
class Write:
    """Put a file or link in its place."""

    item: Item
    state: State


@dataclass(frozen=True, slots=True)
class TakeAway:
    """Take away a file that setup wrote."""

    path: str


@dataclass(frozen=True, slots=True)
class TakeAwayDirectory:
    """Take away a directory that setup made, if it is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a command of the system's."""

    words: Sequence[str]
    well: Collection[int] = (0,)
    """Exit statuses of one that has done its work."""
    again: Collection[int] = ()
    """Those of one that is to be run again, a little later; and how often in all."""
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave something that is not as it would be, and say so."""

    path: str
    why: str


SetupStep = Write | TakeAway | TakeAwayDirectory | RunCommand | Keep


def writes(items: Sequence[Item], before: Manifest, top: str) -> list[Write]:
    """What must be written; `SetupError` if something that is not ours is in the way.

    Every directory is looked at here, so that nothing is begun that cannot be ended.
    """
    missing, foreign = [], []
    for item in items:
        missing_directories(os.path.dirname(item.path), top or "/")
        match state_at(item, top, before.files.get(item.path, ())):
            case State.RIGHT:
                continue
            case State.OTHERS:
                foreign.append(item.path)
            case state:
                missing.append(Write(item, state))
    if foreign:
        raise SetupError(
            f"not written by setup, or changed since: {', '.join(foreign[:5])}; move what is there"
            " away and run it again (changes to a unit belong into: systemctl edit)"
        )
    return missing


def stale(
    keep: Collection[str], before: Manifest, top: str
) -> list[TakeAway | TakeAwayDirectory | Keep]:
    """What setup wrote and made earlier and does not need any more, beside those paths."""
    files = removals([path for path in before.files if path not in keep], before, top)
    wanted = [settled(path, top) for path in (*keep, MANIFEST)]
    unused = [
        place
        for place in before.directories
        if not any(path.startswith(f"{place}/") for path in wanted)
    ]
    return [*files, *(TakeAwayDirectory(place) for place in sorted(unused, reverse=True))]


def removals(paths: Sequence[str], before: Manifest, top: str) -> list[TakeAway | Keep]:
    """The steps that remove those, but for what was changed by hand, or others could exchange."""
    steps: list[TakeAway | Keep] = []
    for path in sorted(paths):
        if not top and is_declared(path):
            steps.append(Keep(path, "NixOS or nix-darwin has put its own there since"))
            continue
        digest = digest_at(f"{top}{path}")
        try:
            missing_directories(os.path.dirname(path), top or "/")
        except SetupError as cause:
            steps += [Keep(path, str(cause))] if digest else []
            continue
        if digest is None or digest in before.files[path]:
            steps.append(TakeAway(path))
        else:
            steps.append(Keep(path, "it was changed since setup wrote it"))
    return steps


def is_declared(path: str) -> bool:
    """Whether what is there is of a system of modules: those link from /etc into the Nix store."""
    real = os.path.realpath(path)
    return path.startswith("/etc/") and real.startswith("/nix/store/") and os.path.exists(real)


def manifest_before(before: Manifest, steps: Sequence[SetupStep], top: str, user: str) -> Manifest:
    """The manifest to write before the steps: all that may be there once they have begun."""
    files = {path: list(digests) for path, digests in before.files.items()}
    directories = list(before.directories)
    for step in steps:
        if isinstance(step, Write):
            files.setdefault(step.item.path, []).append(step.item.digest())
            missing = missing_directories(os.path.dirname(step.item.path), top or "/")
            directories += [place.removeprefix(top) for place in missing]
    missing = missing_directories(os.path.dirname(MANIFEST), top or "/")
    directories += [place.removeprefix(top) for place in missing]
    return Manifest(
        {path: tuple(dict.fromkeys(digests)) for path, digests in files.items()},
        tuple(sorted(set(directories))),
        before.user or user,
        ended=False,
    )


def manifest_after(
    begun: Manifest, items: Sequence[Item], steps: Sequence[SetupStep], top: str
) -> Manifest:
    """The manifest to write after the steps: what is really there, and ours."""
    # What was never ours can be kept, too.
    kept = {step.path for step in steps if isinstance(step, Keep)} & begun.files.keys()
    ours = {item.path: item.digest() for item in items if item.path in begun.files}
    files = {
        path: begun.files[path]
        if path in kept or digest_at(f"{top}{path}") != digest
        else (digest,)
        for path, digest in ours.items()
    }
    files |= {path: begun.files[path] for path in kept}
    # One that could not be removed has become somebody else's.
    left = {step.path for step in steps if isinstance(step, TakeAwayDirectory)}
    there = tuple(place for place in begun.directories if place not in left)
    return replace(begun, files=files, directories=there, ended=True)


def take(steps: Sequence[SetupStep], top: str) -> Iterator[SetupStep]:
    """Take each step, and give it before it is taken. `SetupError` ends it; it can be repeated."""
    for step in steps:
        yield step
        match step:
            case Write(item):
                put(item, top)
            case TakeAway(path):
                take_away(path, top)
            case TakeAwayDirectory(path):
                with suppress(OSError):
                    os.rmdir(f"{top}{path}")
            case RunCommand() as command:
                run_command(command)
            case Keep():
                pass


def output_of(words: Sequence[str]) -> str:
    """What the command prints, whatever its status; empty where there is no such program."""
    done = _run(words)
    return done.stdout if done else ""


def execution(words: Sequence[str]) -> tuple[int, str]:
    """The command's exit status, and all that it said; `SetupError` if it cannot be run."""
    done = _run(words)
    if done is None:
        raise SetupError(f"there is no program {words[0]} in {PATH}")
    said = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[-_MOST_SAID:]
    return done.returncode, "; ".join(said.splitlines())


def run_command(command: RunCommand) -> None:
    """Run it, as often as it takes; `SetupError` with all it said if it fails."""
    for left in reversed(range(command.tries)):
        status, said = execution(command.words)
        if status in command.well:
            return
        if not left or status not in command.again:
            raise SetupError(f"`{' '.join(command.words)}` failed ({status}): {said}")
        time.sleep(_PAUSE)


def _run(words: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    program = shutil.which(words[0], path=PATH)
    if program is None:
        return None
    try:
        return execute([program, *words[1:]], _SECONDS)
    except (OSError, subprocess.SubprocessError) as cause:
        raise SetupError(f"`{' '.join(words)}` failed: {cause}") from cause


def lines(steps: Iterable[SetupStep], style: Style = PLAIN) -> Iterator[str]:
    """A line for each step as it comes; the many files of one copy of the code have one line."""
    return (line for line, _ in groupby(_line(step, style) for step in steps))


def _line(step: SetupStep, style: Style) -> str:
    match step:
        case Write(Link() as link, state):
            return f"link    {style.mark(Mark.NAME, link.path)} -> {link.target} ({state})"
        case Write(item, state):
            return f"write   {style.mark(Mark.NAME, _whole(item.path))} ({state})"
        case TakeAway(path) | TakeAwayDirectory(path):
            return f"remove  {style.mark(Mark.NAME, _whole(path))}"
        case RunCommand(words):
            return f"run     {style.mark(Mark.NAME, shlex.join(words))}"
        case Keep(path, why):
            return f"{style.mark(Mark.KEPT, 'keep')}    {style.mark(Mark.NAME, path)}: {why}"


def _whole(path: str) -> str:
    if not path.startswith(f"{CODE}/"):
        return path
    return f"{CODE}/{path.removeprefix(f'{CODE}/').split('/')[0]}/"


def as_json(steps: Iterable[SetupStep], why: str, *, dry_run: bool) -> str:
    """All of it as one JSON object; `why` tells what the services run."""
    objects = [_object(step) for step in steps]
    return json_text({"dry-run": dry_run, "program": why, "steps": objects})


def _object(step: SetupStep) -> dict[str, object]:
    match step:
        case Write(Link() as link, state):
            return {"do": "link", "path": link.path, "target": link.target, "was": str(state)}
        case Write(item, state):
            return {"do": "write", "path": item.path, "sha256": item.digest(), "was": str(state)}
        case TakeAway(path):
            return {"do": "remove", "path": path}
        case TakeAwayDirectory(path):
            return {"do": "remove-directory", "path": path}
        case RunCommand(words):
            return {"do": "run", "words": list(words)}
        case Keep(path, why):
            return {"do": "keep", "path": path, "why": why}
