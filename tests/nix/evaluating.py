# SPDX-License-Identifier: MIT
"""Nix with a store of its own: expressions evaluated, and derivations really built, by anybody."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from storewarden.setup.code import NEEDED

CHECKOUT = os.path.realpath(f"{os.path.dirname(__file__)}/../..")
LIBRARY = os.environ.get("NIXPKGS_LIB")
NIX_DARWIN = os.environ.get("STOREWARDEN_NIX_DARWIN")
MODULES = f"{CHECKOUT}/tests/nix/modules.nix"
_REQUIRED = os.environ.get("STOREWARDEN_REQUIRE_REAL_NIX") == "1"
_NOTHING_OF_ITS_OWN = """\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
"""


@dataclass(frozen=True, slots=True)
class Nix:
    """A store, and all that Nix writes, below one directory."""

    top: str

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one of Nix's programs to its end."""
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": f"{self.top}/home",
            "TMPDIR": f"{self.top}/tmp",
            "NIX_CONF_DIR": f"{self.top}/conf",
            "NIX_STORE_DIR": f"{self.top}/store",
            "NIX_STATE_DIR": f"{self.top}/state",
            "NIX_LOG_DIR": f"{self.top}/log",
        }
        return subprocess.run(
            words,
            env=environment,
            cwd=self.top,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    def value(self, *words: str) -> Any:
        """The value of an expression."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, *words: str) -> str:
        """What is said of an expression that must not evaluate."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", *words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def build(self, *words: str) -> str:
        """Build it; gives its path."""
        done = self.run("nix-build", "--no-out-link", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def new_nix(top: str) -> Nix:
    """One in that directory; skips, or fails where real Nix is required, if there is no Nix."""
    if shutil.which("nix-instantiate") is None:
        reason = "there is no nix-instantiate here (on Debian: apt-get install nix-bin)"
        if _REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)
    for name in ("home", "tmp", "conf"):
        os.makedirs(f"{top}/{name}")
    with open(f"{top}/conf/nix.conf", "w", encoding="ascii") as file:
        file.write(_NOTHING_OF_ITS_OWN)
    return Nix(top)


def library() -> str:
    """Where nixpkgs' library is; it is somebody else's, and no part of this checkout."""
    if LIBRARY is None:
        pytest.skip("NIXPKGS_LIB does not name a checkout of nix-community/nixpkgs.lib")
    return LIBRARY


def dependencies(top: str) -> str:
    """A directory laid out like a package of nixpkgs, with what storewarden and its tests import."""
    place = f"{top}/dependencies/{site_packages()}"
    if not os.path.isdir(place):
        os.makedirs(place)
        found = next(one for one in sys.path if os.path.isdir(f"{one}/structlog"))
        for name in os.listdir(found):
            ours = name == "__pycache__" or "storewarden" in name or name == "sitecustomize.py"
            if not ours and (name in NEEDED or not name.startswith("_virtualenv")):
                os.symlink(f"{found}/{name}", f"{place}/{name}")
    return f"{top}/dependencies"


def site_packages() -> str:
    """As lib/python3.11/site-packages."""
    return f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def interpreter() -> str:
    """The one below the virtual environment that runs the tests."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def words(nix: Nix, configuration: str = "{ }", *, nix_darwin: str | None = None) -> list[str]:
    """The arguments for modules.nix with that configuration, an expression of a module."""
    python = f'{{ interpreter = "{interpreter()}"; sitePackages = "{site_packages()}"; }}'
    arguments = {
        "library": library(),
        "python": python,
        "dependencies": f'"{dependencies(nix.top)}"',
        "configuration": configuration,
        "nix-darwin": nix_darwin or "null",
    }
    return [MODULES, *(word for pair in arguments.items() for word in ("--arg", *pair))]
