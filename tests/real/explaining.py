# SPDX-License-Identifier: MIT
"""`storewarden explain` and `storewarden locks`, run in a rig, and what they say."""

from json_documents import checked
from real import namespace as ns
from real.rig import Rig
from real.warden import Report


def explained(rig: Rig, *paths: str, user: str = "root") -> list[Report]:
    """What is said of each path, the minimum age left out of it."""
    words = ["explain", "--json", "--min-age", "0", *paths]
    told: list[Report] = _said(rig, words, user)["paths"]
    return told


def explained_as_text(rig: Rig, path: str, user: str = "root") -> str:
    """The same for people."""
    done = ns.run(rig.namespace, [rig.python, "-m", "storewarden", "explain", path], user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def listed(rig: Rig, *words: str, user: str = "root") -> dict[str, Report]:
    """The lock files by path."""
    found = _said(rig, ["locks", "--json", *words], user)["locks"]
    return {lock["path"]: lock for lock in found}


def pids(processes: list[Report]) -> set[int]:
    """The processes of a list of them."""
    return {one["pid"] for one in processes}


def commands(told: Report) -> list[str]:
    """The commands that the user is told of."""
    return [one["command"] for one in told["advice"] if one["command"]]


def _said(rig: Rig, words: list[str], user: str) -> Report:
    done = ns.run(rig.namespace, [rig.python, "-m", "storewarden", *words], user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    document: Report = checked(done.stdout, *words)
    return document
