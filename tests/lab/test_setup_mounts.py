# SPDX-License-Identifier: MIT
"""Set up where the store is mounted in other ways: the helper writes, and nobody else can."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from lab.machine import Machine, control, start_nix
from lab.service import HELPER, ONLY_TWO, delivered, exposure, journal, main_process, run, setup
from real import namespace as ns
from real.builds import Interrupt, interrupt, start_build
from real.recipes import Recipe
from real.rig import Rig, valid_paths

_DROP_IN = "storewarden-helper-store"
OVER_ITSELF = ("mount --bind /nix/store /nix/store",)
OWN = ("mount -t tmpfs -o mode=1775 tmpfs /nix/store", "chgrp nixbld /nix/store")


@contextmanager
def mounted(rig: Rig, how: tuple[str, ...]) -> Iterator[None]:
    """While the store is mounted like that, and Nix knows it."""
    control(rig, "stop", "nix-daemon.socket", "nix-daemon.service")
    for command in how:
        assert ns.run(rig.namespace, command.split()).returncode == 0, command
    start_nix(rig)
    yield
    # The fixture unmounts it.


@dataclass(frozen=True, slots=True)
class Way:
    """How the store is mounted, and what setup must make of it."""

    mounts: tuple[str, ...]
    read_only: bool
    drop_in: str
    exposure: float


WAYS = {
    "read-only over itself": Way(OVER_ITSELF, read_only=True, drop_in="", exposure=1.5),
    "of its own": Way(OWN, read_only=False, drop_in=f"{_DROP_IN}-mount", exposure=1.5),
    "of its own, read-only": Way(OWN, read_only=True, drop_in=f"{_DROP_IN}-remount", exposure=2.0),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_debris_is_removed_from_a_store_that_is_mounted(machine: Machine, way: Way) -> None:
    rig = machine.rig
    with mounted(rig, way.mounts), delivered(machine) as python:
        build = start_build(rig, Recipe("mounted"))
        interrupt(rig, build, Interrupt.SIGINT_CLIENT)
        assert {f"/nix/store/{name}" for name in left(rig)} == build.entries
        if way.read_only:
            words = ["mount", "-o", "remount,bind,ro", "/nix/store"]
            assert ns.run(rig.namespace, words).returncode == 0
        setup(rig, python)
        shown = control(rig, "show", "--property=DropInPaths", "--value", HELPER)
        assert way.drop_in in shown
        assert bool(way.drop_in) == ("storewarden-helper-store" in shown)
        ns.wait_until(lambda: left(rig) == set(), f"the service to remove it:\n{journal(rig)}", 60)
        helper = main_process(rig, HELPER)
        assert {helper[f"Cap{which}"] for which in ("Eff", "Prm", "Bnd")} == {ONLY_TWO}
        assert exposure(rig, HELPER) <= way.exposure
        touched = ns.run(rig.namespace, ["touch", "/nix/store/x"])
        assert (touched.returncode != 0) is way.read_only, "the machine's own mount was changed"
        assert ns.run(rig.namespace, ["rm", "-f", "/nix/store/x"]).returncode in {0, 1}


def left(rig: Rig) -> set[str]:
    """What lies in the store, as seen from inside, and is not registered."""
    valid = {path.rpartition("/")[2] for path in valid_paths(rig)}
    return {name for name in run(rig, ["ls", "/nix/store"]).stdout.split() if name not in valid}
