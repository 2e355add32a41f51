# SPDX-License-Identifier: MIT
"""Why a valid path stays: what the database and Nix say of it. Asked, never changed.

Each question to Nix is a new process through the daemon, bounded in time (nix_queries.py).
"""

import os
from contextlib import suppress
from dataclasses import dataclass, replace

from storewarden import nix_queries
from storewarden.nix_queries import Registration
from storewarden.store import database
from storewarden.store.nix import Nix, SilentError
from storewarden.store.paths import StoreDir, StorePath


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
        with suppress(SilentError):
            return nix_queries.registration(nix, path)
        return None
    return row and Registration(*row)


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
        return Answer(nix_queries.query(nix, question, full))
    except SilentError as silent:
        return Answer(problem=str(silent))
