# SPDX-License-Identifier: MIT
"""Why a valid path stays: what the database and Nix say of it. Asked, never changed.

Each question to Nix is a new process through the daemon, bounded in time (store/nix.py).
"""

import json
import os
from dataclasses import dataclass, replace

from storewarden.store import database
from storewarden.store.nix import HungError, Nix, run
from storewarden.store.paths import StoreDir, StorePath

_SECONDS = 30.0
"""To find the roots Nix looks into every process."""
_PATH_INFO = ("--extra-experimental-features", "nix-command", "--offline", "path-info", "--json")


@dataclass(frozen=True, slots=True)
class Registration:
    """A row of ValidPaths, as far as it is known."""

    time: int | None
    """Unix time."""
    deriver: str | None
    """Full path."""
    nar_size: int | None
    content_address: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Lines of an answer, or why there is none."""

    lines: tuple[str, ...] = ()
    problem: str = ""


def registration(
    state_dir: str, store_dir: StoreDir, path: StorePath, nix: Nix
) -> Registration | None:
    """How that path is registered, from the database or else from Nix; None if it is not known."""
    query = "SELECT registrationTime, deriver, narSize, ca FROM ValidPaths WHERE path = ?"
    full = store_dir.join(path.base_name)
    try:
        with database.connect(state_dir) as connection:
            row = connection.execute(query, (full,)).fetchone()
    except database.DatabaseUnseenError:
        return _told_by_nix(nix, full)
    return row and Registration(*row)


def _told_by_nix(nix: Nix, full: str) -> Registration | None:
    try:
        said = run(nix, [nix.program, *_PATH_INFO, full])
        document = json.loads(said) if isinstance(said, bytes) else None
    except (HungError, ValueError, RecursionError):
        return None
    # A list up to 2.18, by full path from 2.19 on.
    found = document.get(full) if isinstance(document, dict) else next(iter(document or ()), None)
    if not isinstance(found, dict) or "narHash" not in found:
        return None
    numbers = [
        v if isinstance(v := found.get(k), int) else None for k in ("registrationTime", "narSize")
    ]
    texts = [v if isinstance(v := found.get(k), str) else None for k in ("deriver", "ca")]
    return Registration(numbers[0], texts[0], numbers[1], texts[1])


def referrers(nix: Nix, full: str) -> Answer:
    """The valid paths that refer to it, without itself."""
    answer = _query(nix, "--referrers", full)
    return replace(answer, lines=tuple(line for line in answer.lines if line != full))


def roots(nix: Nix, full: str) -> Answer:
    """What keeps it from the collector, by Nix: `link -> path` each, `{censored}` for strangers.

    Without this process, which has the path in its environment if sudo started it (SUDO_COMMAND).
    """
    answer = _query(nix, "--roots", full)
    own = f"/proc/{os.getpid()}/"
    return replace(answer, lines=tuple(x for x in answer.lines if not x.startswith(own)))


def _query(nix: Nix, question: str, full: str) -> Answer:
    try:
        said = run(replace(nix, timeout=_SECONDS), [nix.nix_store, "--query", question, full])
    except HungError as hung:
        return Answer(problem=str(hung))
    if isinstance(said, str):
        return Answer(problem=said)
    return Answer(tuple(sorted(set(said.decode("utf-8", "backslashreplace").splitlines()))))
