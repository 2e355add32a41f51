# SPDX-License-Identifier: MIT
"""From what should be and what is to the steps between, and the steps taken one by one."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from storewarden.setup.commands import run
from storewarden.setup.files import Item, State, digest_at, put, state_of, take_away
from storewarden.setup.manifest import MANIFEST, Manifest
from storewarden.setup.trust import SetupError, missing_directories


@dataclass(frozen=True, slots=True)
class Write:
    """Put a file or link in its place."""

    item: Item
    state: State


@dataclass(frozen=True, slots=True)
class Remove:
    """Take away a file that setup wrote."""

    path: str


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Take away a directory that setup made, if it is empty."""

    path: str


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command of the system's."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave something that is not as it would be, and say so."""

    path: str
    why: str


Step = Write | Remove | RemoveDirectory | Run | Keep


def writes(items: Sequence[Item], before: Manifest, top: str) -> list[Write]:
    """What must be written; `SetupError` if something that is not ours is in the way.

    Every directory is looked at here, so that nothing is begun that cannot be ended.
    """
    wanted, foreign = [], []
    for item in items:
        missing_directories(os.path.dirname(item.path), top or "/")
        match state_of(item, top, before.files.get(item.path, ())):
            case State.RIGHT:
                continue
            case State.OTHERS:
                foreign.append(item.path)
            case state:
                wanted.append(Write(item, state))
    if foreign:
        raise SetupError(
            f"not written by setup, or changed since: {', '.join(foreign[:5])}; move what is there"
            " away and run it again (changes to a unit belong into: systemctl edit)"
        )
    return wanted


def stale(
    wanted: Collection[str], before: Manifest, top: str
) -> list[Remove | RemoveDirectory | Keep]:
    """What setup wrote and made earlier and does not want any more, beside those paths."""
    files = removals([path for path in before.files if path not in wanted], before, top)
    unused = [
        place
        for place in before.directories
        if not any(path.startswith(f"{place}/") for path in (*wanted, MANIFEST))
    ]
    return [*files, *(RemoveDirectory(place) for place in sorted(unused, reverse=True))]


def removals(paths: Sequence[str], before: Manifest, top: str) -> list[Remove | Keep]:
    """How to be rid of those, keeping what was changed by hand, or others could exchange."""
    steps: list[Remove | Keep] = []
    for path in sorted(paths):
        try:
            missing_directories(os.path.dirname(path), top or "/")
        except SetupError as cause:
            steps.append(Keep(path, str(cause)))
            continue
        digest = digest_at(f"{top}{path}")
        if digest is None or digest in before.files[path]:
            steps.append(Remove(path))
        else:
            steps.append(Keep(path, "it was changed since setup wrote it"))
    return steps


def intended(before: Manifest, steps: Sequence[Step], top: str, user: str) -> Manifest:
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


def reached(begun: Manifest, items: Sequence[Item], steps: Sequence[Step], top: str) -> Manifest:
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
    left = {step.path for step in steps if isinstance(step, RemoveDirectory)}
    there = tuple(place for place in begun.directories if place not in left)
    return replace(begun, files=files, directories=there, ended=True)


def take(steps: Sequence[Step], top: str) -> Iterator[Step]:
    """Take each step, and give it before it is taken. `SetupError` ends it; it can be repeated."""
    for step in steps:
        yield step
        match step:
            case Write(item):
                put(item, top)
            case Remove(path):
                take_away(path, top)
            case RemoveDirectory(path):
                with suppress(OSError):
                    os.rmdir(f"{top}{path}")
            case Run(words):
                run(words)
            case Keep():
                pass
