# SPDX-License-Identifier: MIT
"""Builds of scripts that a test brings along, and many builds by one client."""

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from real import namespace as ns
from real.rig import Rig

# It says what lay at its output when it began, and what lies there when it ends, well or badly:
# by that a build that found debris can be told from one that was disturbed.
WITNESS = r"""
look() { stat -c %u:%i "$out" 2>/dev/null || echo nothing; }
echo "$name begins uid=$(id -u) pid=$$ out=$out sees=$(look)." >&2
trap 'echo "$name ends sees=$(look)." >&2' EXIT
set -e
mkdir -p "$out"
echo half > "$out/scratch.$$"
"""
FINISH = """
rm "$out/scratch.$$"
echo whole > "$out/result"
"""
_BEGAN = r"^{name} begins uid=(\d+) pid=(\d+) out=(\S+) sees=(\S+)\.$"
_ENDED = r"^{name} ends sees=(\S+)\.$"
_HOLD_ALL = """
import fcntl, os, sys
held = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in sys.argv[1:]]
for lock in held:
    fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Witness:
    """What a builder has said of its output: `uid:inode`, or `nothing`."""

    uid: int
    pid: int
    out: str
    saw: str
    saw_at_end: str | None
    """None for one that goes on, or was killed."""


def build_words(rig: Rig, names: Sequence[str], script: str, *options: str) -> list[str]:
    """The command that builds that script under each of those names."""
    job = f"{rig.base}/source/tests/lab/jobs.nix"
    given = ["--argstr", "names", " ".join(names), "--argstr", "script", script]
    many = ["--keep-going", "--max-jobs", "32"]
    return ["nix-build", "--no-out-link", *many, job, *given, *options]


def start(rig: Rig, names: Sequence[str], script: str, log: str, *options: str) -> ns.Child:
    """Start building them, as an ordinary user."""
    place = f"{rig.base}/logs/{log}"
    words = build_words(rig, names, script, *options)
    return ns.start(rig.namespace, words, log=place, user=rig.user)


def log_of(rig: Rig, log: str) -> str:
    """What has been said so far."""
    return ns.read(f"{rig.base}/logs/{log}")


def witness(said: str, name: str) -> Witness | None:
    """What the builder of that name has said; None if it never began."""
    began = re.search(_BEGAN.format(name=re.escape(name)), said, re.MULTILINE)
    if began is None:
        return None
    ended = re.search(_ENDED.format(name=re.escape(name)), said, re.MULTILINE)
    uid, pid, out, saw = began.groups()
    return Witness(int(uid), int(pid), out, saw, ended[1] if ended else None)


def wait_for_builders(rig: Rig, names: Sequence[str], log: str, child: ns.Child) -> list[Witness]:
    """What they all said as they began."""

    def begun() -> bool:
        said = log_of(rig, log)
        assert child.process.poll() is None, said
        return all(f"{name} begins " in said for name in names)

    ns.wait_until(begun, "all builders to begin", 60)
    found = [witness(log_of(rig, log), name) for name in names]
    return [one for one in found if one is not None]


def users_held(rig: Rig, uids: Sequence[int]) -> AbstractContextManager[None]:
    """While none of those build users is free, so that Nix takes others."""
    os.makedirs(f"{rig.state}/userpool", exist_ok=True)
    paths = [f"/nix/var/nix/userpool/{uid}" for uid in uids]
    return ns.holding(rig.namespace, ["python3", "-c", _HOLD_ALL, *paths])
