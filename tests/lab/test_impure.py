# SPDX-License-Identifier: MIT
"""Impure derivations: Nix draws lots for where they build, so nothing tells whose debris is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT

import pytest

from lab import jobs
from lab.machine import control
from real import namespace as ns
from real.rig import Rig, unregistered
from real.warden import finding, scan, statuses

MODES = {"closed to others": "755", "open to others": "775"}


@contextmanager
def allowed(rig: Rig) -> Iterator[None]:
    """While the daemon builds impure derivations."""
    conf = Path(f"{rig.root}/etc/nix/nix.conf")
    before = conf.read_text(encoding="utf-8")
    feature = "extra-experimental-features = impure-derivations\n"
    conf.write_text(before + feature, encoding="utf-8")
    control(rig, "restart", "nix-daemon.service")
    try:
        yield
    finally:
        conf.write_text(before, encoding="utf-8")
        control(rig, "restart", "nix-daemon.service")


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
def test_debris_of_an_impure_build_is_kept_while_its_owner_builds_and_goes_when_it_is_idle(
    rig: Rig, mode: str
) -> None:
    with allowed(rig):
        builder = stranded(rig, mode)
    assert os.lstat(rig.outside(builder.out)).st_mode & 0o777 == int(mode, 8)
    with ns.flocked(rig.namespace, f"/nix/var/nix/userpool/{builder.uid}"):
        assert finding(scan(rig, "--yes"), builder.out)["verdict"] == "keep"
        assert builder.out in unregistered(rig)
    removed = scan(rig, "--yes")
    assert statuses(removed).get(builder.out) == "removed", removed
    assert unregistered(rig) == set()


def stranded(rig: Rig, mode: str) -> jobs.Witness:
    """A build that was interrupted, and whose output has that mode."""
    script = f'{jobs.WITNESS}chmod {mode} "$out"\necho ready >&2\nsleep 600\n{jobs.FINISH}'
    client = jobs.start(rig, ["job"], script, "impure", "--argstr", "kind", "impure")
    [builder] = jobs.wait_for_builders(rig, ["job"], "impure", client)
    ns.wait_until(lambda: "ready" in jobs.log_of(rig, "impure"), "its output")
    [worker] = [one.parent for one in ns.processes(rig.namespace) if one.pid == builder.pid]
    ns.kill(rig.namespace, SIGINT, client.pid)
    assert client.process.wait(20) != 0
    ended = {builder.pid, worker}
    ns.wait_until(lambda: not ended & {p.pid for p in ns.processes(rig.namespace)}, "its end")
    assert builder.out in unregistered(rig)
    return builder
