# SPDX-License-Identifier: MIT
"""The units that the NixOS module renders, at work in a booted root: built there, by its own Nix.

The store is mounted read-only as NixOS does it. This is no part of `make lab`, whose table must be
the same where nixpkgs' library is not.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.machine import Machine, booted, control, reset
from lab.places import SUITES, missing
from lab.service import (
    HELPER,
    ONLY_TWO,
    SOCKET,
    WATCHER,
    exposure,
    journal,
    main_process,
    python_version,
    run,
)
from lab.test_setup_mounts import OVER_ITSELF, OWN, left, mounted
from nix.evaluating import CHECKOUT, Nix, Python, library, new_nix, provide
from nix.rendered import Rendered, render
from real import namespace as ns
from real.builds import Interrupt, builder_lives, interrupt, let_finish, start_build
from real.recipes import Recipe
from real.rig import Rig
from storewarden.config import DEFAULT_CONFIG
from storewarden.setup.code import NEEDED

pytestmark = pytest.mark.slow
WRITTEN = ("systemd/system", "storewarden", "sysusers.d")
WAYS = {
    "bind": (OVER_ITSELF, "", 1.5),
    "remount": (OWN, 'fileSystems."/nix/store" = { };', 2.0),
}


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    library()
    suite: str = request.param
    if reason := missing(suite):
        pytest.skip(reason)
    with booted(suite) as one:
        yield one


@pytest.fixture
def rig(machine: Machine) -> Rig:
    return reset(machine)


def nix_in(rig: Rig) -> Nix:
    """The root's own Nix, with a store at a place that is called the same inside and outside."""
    top = f"{rig.base}/rendered"
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(CHECKOUT, f"{top}/sources", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copytree(f"{library()}/lib", f"{top}/nixpkgs/lib")
    version = python_version(rig)
    nix = new_nix(
        top, Python(f"/usr/bin/python{version}", version), f"{top}/sources", rig.namespace.enter
    )
    provide(f"{top}/dependencies", nix.python, NEEDED)
    return nix


@contextmanager
def at_work(rig: Rig, etc: Rendered) -> Iterator[None]:
    """While the units in it run; what is not theirs is left as it was."""
    for place in WRITTEN:
        shutil.copytree(f"{etc.top}/{place}", f"{rig.root}/etc/{place}", dirs_exist_ok=True)
    # As users.users.storewarden.extraGroups does on NixOS: Debian guards Nix's socket by a group.
    made = run(rig, ["sh", "-ec", "systemd-sysusers; usermod -aG nix-users storewarden"])
    assert made.returncode == 0, made.stderr
    try:
        control(rig, "daemon-reload")
        control(rig, "start", SOCKET, WATCHER)
        yield
    finally:
        run(rig, ["systemctl", "stop", WATCHER, SOCKET, HELPER])
        rubbish = " ".join(f"/etc/{place}/storewarden*" for place in WRITTEN)
        run(rig, ["sh", "-c", f"rm -rf {rubbish} /etc/storewarden /var/log/storewarden"])
        run(rig, ["sh", "-c", "userdel storewarden; systemctl daemon-reload"])


@pytest.mark.parametrize("way", WAYS)
def test_what_a_build_strands_in_a_read_only_store_is_removed(rig: Rig, way: str) -> None:
    mounts, settings, most = WAYS[way]
    nix = nix_in(rig)
    etc = render(nix, settings, nixpkgs=f"{nix.top}/nixpkgs")
    with mounted(rig, mounts):
        live = start_build(rig, Recipe("live"))
        build = start_build(rig, Recipe("job"))
        interrupt(rig, build, Interrupt.SIGINT_CLIENT)
        assert {f"/nix/store/{name}" for name in left(rig)} >= build.entries
        read_only = ["mount", "-o", "remount,bind,ro", "/nix/store"]
        assert ns.run(rig.namespace, read_only).returncode == 0
        with at_work(rig, etc):
            ns.wait_until(
                lambda: not build.entries & {f"/nix/store/{name}" for name in left(rig)},
                f"the service to remove it:\n{journal(rig)}",
                60,
            )
            assert builder_lives(rig, live)
            assert_what_runs_is_what_was_rendered(rig, etc)
            assert exposure(rig, HELPER) <= most
            assert ns.run(rig.namespace, ["touch", "/nix/store/x"]).returncode != 0
            let_finish(rig, live.recipe)
            assert live.client.process.wait(20) == 0, ns.read(live.log)
            control(rig, "restart", WATCHER)
            command = f"{os.path.dirname(etc.interpreter())}/../../../bin/storewarden"
            verified = run(rig, [os.path.realpath(command), "audit", "verify"])
            assert verified.returncode == 0, verified.stdout + verified.stderr


def assert_what_runs_is_what_was_rendered(rig: Rig, etc: Rendered) -> None:
    helper, watcher = main_process(rig, HELPER), main_process(rig, WATCHER)
    assert {helper[f"Cap{which}"] for which in ("Eff", "Prm", "Bnd")} == {ONLY_TWO}
    assert {watcher[f"Cap{which}"] for which in ("Eff", "Prm", "Bnd")} == {f"{0:016x}"}
    proc = f"/proc/{rig.namespace.first}/root/proc"
    words = Path(f"{proc}/{helper['Pid']}/cmdline").read_text(encoding="ascii").split("\0")
    assert words[0] == etc.interpreter()
    assert words[words.index("--config") + 1] == DEFAULT_CONFIG
    assert f'nix = "{rig.base}/rendered/store/' in etc.text("storewarden/config.toml")
