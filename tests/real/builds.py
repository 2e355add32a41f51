# SPDX-License-Identifier: MIT
"""Slow builds in a rig: started, watched, interrupted in each way that strands, and retried."""

import os
import re
import subprocess
from dataclasses import dataclass
from enum import Enum
from signal import SIGINT, SIGKILL

from real import namespace as ns
from real.recipes import Recipe, arguments, client_of
from real.rig import Rig

_STARTED = re.compile(r"^builder uid=(\d+) pid=(\d+) out=(\S+) dev=(\S*)\.$", re.MULTILINE)


class Interrupt(Enum):
    """A way to end a build in the middle."""

    SIGINT_CLIENT = "Ctrl+C"
    SIGKILL_CLIENT = "client killed"
    SIGKILL_WORKER = "worker killed"
    BUILDER_FAILS = "builder failed"


@dataclass(frozen=True, slots=True)
class Build:
    """A build that has been seen writing into its outputs."""

    recipe: Recipe
    drv: str
    outputs: dict[str, str]
    """Output name to the path that the builder writes to (of kind "ca": the scratch path)."""
    uid: int
    client: ns.Child
    worker: int
    builder: int
    log: str

    @property
    def locks(self) -> dict[str, str]:
        """Output name to the lock that Nix holds for it."""
        if self.recipe.kind == "ca":
            return {output: f"{self.drv}.{output}.lock" for output in self.outputs}
        return {output: f"{path}.lock" for output, path in self.outputs.items()}

    @property
    def entries(self) -> set[str]:
        """All that it leaves in the store when it is interrupted."""
        return {*self.outputs.values(), *self.locks.values()}


def start_build(rig: Rig, recipe: Recipe) -> Build:
    """Start it as an ordinary user; it returns when the builder has written into every output."""
    user = client_of(rig, recipe)
    asked = ns.run(rig.namespace, ["nix-instantiate", *arguments(rig, recipe)], user=user)
    assert asked.returncode == 0, asked.stderr
    log = f"{rig.base}/logs/{recipe.name}"
    command = ["nix-build", "--no-out-link", *arguments(rig, recipe)]
    client = ns.start(rig.namespace, command, log=log, user=user)
    ns.wait_until(
        lambda: _STARTED.search(ns.read(log)) is not None or client.process.poll() is not None,
        f"the builder of {recipe.name}",
    )
    said = _STARTED.search(ns.read(log))
    assert said, f"the build ended early:\n{ns.read(log)}"
    out, dev = said.groups()[2:]
    # A sandboxed builder knows neither its user nor its pid.
    builder = _sandboxed(rig, recipe) if recipe.sandbox else int(said[2])
    [process] = [one for one in ns.processes(rig.namespace) if one.pid == builder]
    return Build(
        recipe,
        drv=asked.stdout.strip(),
        outputs={name: path for name, path in (("out", out), ("dev", dev)) if path},
        uid=process.uid,
        client=client,
        worker=process.parent,
        builder=builder,
        log=log,
    )


def strand(rig: Rig, build: Build, how: Interrupt = Interrupt.SIGINT_CLIENT) -> None:
    """Interrupt it, and see that it left all that an unsandboxed build leaves."""
    interrupt(rig, build, how)
    left = {path for path in build.entries if os.path.lexists(rig.outside(path))}
    assert left == build.entries, f"{how.value} did not strand all of {build.entries}"


def interrupt(rig: Rig, build: Build, how: Interrupt) -> None:
    """Interrupt it; it returns when all has ended that ends by that."""
    match how:
        case Interrupt.SIGINT_CLIENT:
            ns.kill(rig.namespace, SIGINT, build.client.pid)
        case Interrupt.SIGKILL_CLIENT:
            ns.kill(rig.namespace, SIGKILL, build.client.pid)
        case Interrupt.SIGKILL_WORKER:
            ns.kill(rig.namespace, SIGKILL, build.worker)
        case Interrupt.BUILDER_FAILS:
            _signal(rig, build.recipe, "fail")
    assert build.client.process.wait(20) != 0, ns.read(build.log)
    ended = {build.worker}
    # Up to Nix 2.33 a builder outlives its killed worker; since, it ends a moment after it.
    if how is not Interrupt.SIGKILL_WORKER or rig.nix_version >= (2, 34):
        ended.add(build.builder)
    ns.wait_until(
        lambda: not ended & {process.pid for process in ns.processes(rig.namespace)},
        f"the end of {build.recipe.name}",
    )


def stranded(rig: Rig, name: str, how: Interrupt = Interrupt.SIGINT_CLIENT) -> Build:
    """A build of one floating content-addressed output, interrupted."""
    build = start_build(rig, Recipe(name))
    strand(rig, build, how)
    return build


def interrupted(rig: Rig, name: str) -> Build:
    """As `stranded`, where a service may have removed it before anybody can look."""
    build = start_build(rig, Recipe(name))
    interrupt(rig, build, Interrupt.SIGINT_CLIENT)
    return build


def let_finish(rig: Rig, recipe: Recipe) -> None:
    """Tell builders of that recipe, those that run and those to come, to end well and at once."""
    failing = f"{rig.base}/signals/{recipe.name}.fail"
    if os.path.exists(failing):
        os.unlink(failing)
    _signal(rig, recipe, "finish")


def retry(
    rig: Rig, recipe: Recipe, *, not_uid: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Build it to its end; with `not_uid` as another build user than that."""
    let_finish(rig, recipe)
    command = ["nix-build", "--no-out-link", *arguments(rig, recipe)]
    if not_uid is None:
        return ns.run(rig.namespace, command, user=client_of(rig, recipe))
    # Nix takes the first build user whose lock is free.
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{not_uid}"):
        return ns.run(rig.namespace, command, user=client_of(rig, recipe))


def builder_lives(rig: Rig, build: Build) -> bool:
    """Whether the builder itself, not only its worker, still runs."""
    return build.builder in {process.pid for process in ns.processes(rig.namespace)}


def _sandboxed(rig: Rig, recipe: Recipe) -> int:
    found = {process.pid: process for process in ns.processes(rig.namespace)}
    named = f"\0name={recipe.name}\0"
    [builder] = [
        process.pid
        for process in found.values()
        if process.uid in rig.build_users
        and found[process.parent].uid == 0
        and named in ns.read(f"/proc/{rig.namespace.first}/root/proc/{process.pid}/environ")
    ]
    return builder


def _signal(rig: Rig, recipe: Recipe, what: str) -> None:
    with open(f"{rig.base}/signals/{recipe.name}.{what}", "w", encoding="ascii"):
        pass
