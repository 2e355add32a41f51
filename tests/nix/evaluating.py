# SPDX-License-Identifier: MIT
"""Nix with a store of its own: expressions evaluated, and derivations really built, by anybody."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from programs import program

CHECKOUT = os.path.realpath(f"{os.path.dirname(__file__)}/../..")
LIBRARY = os.environ.get("NIXPKGS_LIB")
NIX_DARWIN = os.environ.get("STOREWARDEN_NIX_DARWIN")
_NOTHING_OF_ITS_OWN = """\
experimental-features = nix-command flakes
build-users-group =
sandbox = false
substituters =
"""


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter, by its path and its version (as 3.11)."""

    path: str
    version: str

    @property
    def site_packages(self) -> str:
        """As lib/python3.11/site-packages."""
        return f"lib/python{self.version}/site-packages"


@dataclass(frozen=True, slots=True)
class Nix:
    """A store, and all that Nix writes, below one directory."""

    top: str
    python: Python
    """What packages are built with."""
    sources: str = CHECKOUT
    """A checkout that Nix can see."""
    enter: tuple[str, ...] = ()
    """The command that runs another one where this Nix is."""

    def run(self, *words: str, seconds: int = 280) -> "subprocess.CompletedProcess[str]":
        """Run one of Nix's programs to its end."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": f"{self.top}/home",
            "TMPDIR": f"{self.top}/t",
            "NIX_CONF_DIR": f"{self.top}/conf",
            "NIX_STORE_DIR": f"{self.top}/store",
            "NIX_STATE_DIR": f"{self.top}/state",
            "NIX_LOG_DIR": f"{self.top}/log",
        }
        return subprocess.run(
            [*self.enter, *words],
            env=environment,
            cwd=self.top,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def value(self, *words: str) -> Any:  # noqa: ANN401 - as of JSON
        """The value of an expression."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, *words: str) -> str:
        """What is said of an expression that must not evaluate."""
        done = self.run("nix-instantiate", "--eval", "--strict", "--json", *words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def build(self, *words: str, seconds: int = 280) -> str:
        """Build it; gives its path."""
        done = self.run("nix-build", "--no-out-link", *words, seconds=seconds)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def new_nix(top: str, python: Python, sources: str = CHECKOUT, enter: tuple[str, ...] = ()) -> Nix:
    """One in that directory."""
    for name in ("home", "t", "conf"):
        os.makedirs(f"{top}/{name}")
    with open(f"{top}/conf/nix.conf", "w", encoding="ascii") as file:
        file.write(_NOTHING_OF_ITS_OWN)
    return Nix(top, python, sources, enter)


def own_nix(top: str) -> Nix:
    """This machine's; skips, or fails where real Nix is required, if it has none."""
    program("nix-instantiate", "nix-bin")
    nix = new_nix(top, own_python())
    provide(f"{top}/dependencies", nix.python, everything())
    return nix


def own_python() -> Python:
    """The interpreter below the virtual environment that runs the tests."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return Python(os.path.realpath(base), f"{sys.version_info[0]}.{sys.version_info[1]}")


def library() -> str:
    """Where nixpkgs' library is; it is somebody else's, and no part of this checkout."""
    if LIBRARY is None:
        pytest.skip("NIXPKGS_LIB does not name a checkout of nix-community/nixpkgs.lib")
    return LIBRARY


def everything() -> list[str]:
    """The names of all modules that are installed beside the tests, but for storewarden's own."""
    names = os.listdir(_installed("structlog"))
    return [
        name
        for name in names
        if name != "__pycache__"
        and "storewarden" not in name
        and not name.startswith("_virtualenv")
    ]


def provide(package: str, python: Python, modules: Sequence[str]) -> None:
    """Make that directory one as a package of nixpkgs, with copies of those modules."""
    place = f"{package}/{python.site_packages}"
    os.makedirs(place)
    for name in modules:
        source = f"{_installed(name)}/{name}"
        if os.path.isdir(source):
            shutil.copytree(source, f"{place}/{name}", ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)


def _installed(name: str) -> str:
    return next(place for place in sys.path if os.path.exists(f"{place}/{name}"))


def words(
    nix: Nix, configuration: str = "{ }", *, nixpkgs: str = "", nix_darwin: str | None = None
) -> list[str]:
    """The arguments for modules.nix with that configuration, an expression of a module."""
    path, site_packages = nix.python.path, nix.python.site_packages
    arguments = {
        "library": nixpkgs or library(),
        "python": f'{{ interpreter = "{path}"; sitePackages = "{site_packages}"; }}',
        "dependencies": f'"{nix.top}/dependencies"',
        "configuration": configuration,
        "nix-darwin": nix_darwin or "null",
    }
    given = (word for pair in arguments.items() for word in ("--arg", *pair))
    return [f"{nix.sources}/tests/nix/modules.nix", *given]
