# SPDX-License-Identifier: MIT
"""`storewarden run`, run in a rig, and what must be true of a build that it healed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from real import namespace as ns
from real.builds import Build, let_finish, stranded
from real.recipes import Recipe, arguments
from real.rig import Rig, unregistered, valid_paths
from real.warden import AT_ONCE, audit_log

WEDGED = "Permission denied"
AGAIN = "running it once more"


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    told: str
    """On stdout and stderr."""


def derivation(name: str, script: str) -> str:
    """An expression for a floating content-addressed output that such a script makes."""
    return (
        f'derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh";'
        ' __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";'
        f" args = [ \"-c\" ''{script}'' ]; }}"
    )


def words(rig: Rig, command: Sequence[str], *more: str) -> list[str]:
    program = [rig.python, "-m", "storewarden", "run", *AT_ONCE, "--audit-log", audit_log(rig)]
    return [*program, *more, "--", *command]


def nix_build(rig: Rig, recipe: Recipe) -> list[str]:
    return ["nix-build", "--no-out-link", *arguments(rig, recipe)]


def run_wedged(rig: Rig, uid: int, command: Sequence[str], user: str = "root") -> Ended:
    """Run it to its end. That build user is in use until the first build has failed."""
    log = f"{rig.base}/logs/run"
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{uid}"):
        child = ns.start(rig.namespace, command, log=log, user=user)
        ns.wait_until(lambda: "failed with exit code" in ns.read(log), "the first build to fail")
    status = child.process.wait(60)
    return Ended(status, ns.read(log))


def as_user(rig: Rig, command: Sequence[str]) -> list[str]:
    """What root runs so that the build is an ordinary user's."""
    return [*ns.as_user(rig.namespace, rig.user), *command]


def assert_healed(rig: Rig, build: Build, done: Ended) -> None:
    assert done.status == 0, done.told
    path = done.told.split()[-1]
    assert path in valid_paths(rig)
    assert os.listdir(rig.outside(path)) == ["result"]
    assert done.told.count(AGAIN) == 1, done.told
    assert f"removed: {build.outputs['out']}" in done.told


def assert_a_wedged_build_is_healed(rig: Rig) -> None:
    """One of an ordinary user's, run by root."""
    build = stranded(rig, "wedged")
    let_finish(rig, build.recipe)
    asked = words(rig, as_user(rig, nix_build(rig, build.recipe)))
    assert_healed(rig, build, run_wedged(rig, build.uid, asked))
    assert unregistered(rig) == set()
