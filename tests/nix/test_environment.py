# SPDX-License-Identifier: MIT
"""The interpreter that the package's services and command run: no variable adds code to it.

No Nix is needed: install.sh is run as the package runs it, on an interpreter that has what
nixpkgs' one has: a sitecustomize among its own packages that imports from NIX_PYTHONPATH.
"""

import os
import shutil
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix.evaluating import CHECKOUT, own_python, provide
from storewarden.setup.code import NEEDED

SITECUSTOMIZE = """
import os, site
for place in filter(None, os.environ.pop("NIX_PYTHONPATH", "").split(":")):
    site.addsitedir(place)
"""
INSTALL = f'cd "{CHECKOUT}" && . nix/install.sh && install_all "$@"'
VARIABLES = ("NIX_PYTHONPATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "NIX_PYTHONPREFIX")


@dataclass(frozen=True, slots=True)
class Installed:
    """What install.sh made, and the interpreter that it was given."""

    out: str
    base: str
    poison: str
    """A directory with code that leaves a file when it is run, and nothing else."""

    @property
    def python(self) -> str:
        return f"{self.out}/libexec/storewarden/bin/python3"

    def run(self, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": "/usr/bin:/bin", "HOME": self.poison, **variables}
        return subprocess.run(
            words, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=60
        )

    def poisoned(self) -> bool:
        return os.path.exists(f"{self.poison}/was-run")


def like_nixpkgs(place: Path) -> str:
    """An interpreter with this one's standard library, and a sitecustomize among its packages."""
    library = place / "lib" / f"python{own_python().version}"
    library.mkdir(parents=True)
    for name in os.listdir(os.path.dirname(os.__file__)):
        if name not in {"sitecustomize.py", "site-packages", "dist-packages", "__pycache__"}:
            (library / name).symlink_to(f"{os.path.dirname(os.__file__)}/{name}")
    (place / "bin").mkdir()
    shutil.copy(own_python().path, place / "bin" / "python3")
    for own in site.getsitepackages([str(place)]):
        Path(own).mkdir(parents=True, exist_ok=True)
        Path(own, "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="ascii")
    return str(place / "bin" / "python3")


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    if sys.platform != "linux" or shutil.which("bash") is None:
        pytest.skip("install.sh is run by bash, and tried on Linux")
    poison = tmp_path / "poison"
    poison.mkdir()
    code = f"open({str(poison / 'was-run')!r}, 'w')\n"
    for name in ("structlog.py", "storewarden.py", "startup.py"):
        (poison / name).write_text(code, encoding="ascii")
    # What is in a .pth is run before anything of the program is.
    (poison / "poison.pth").write_text(f"import builtins; {code}", encoding="ascii")
    out = tmp_path / "out"
    library = out / own_python().site_packages
    library.mkdir(parents=True)
    (library / "storewarden").symlink_to(f"{CHECKOUT}/src/storewarden")
    provide(str(tmp_path / "dependencies"), own_python(), NEEDED)
    base = like_nixpkgs(tmp_path / "python")
    site_packages = own_python().site_packages
    settings = {"interpreter": base, "sitePackages": site_packages, "platform": "linux"}
    done = subprocess.run(
        ["bash", "-ec", INSTALL, "bash", str(tmp_path / "dependencies")],
        env={"PATH": "/usr/bin:/bin", "out": str(out), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Installed(str(out), base, str(poison))


def test_an_isolated_interpreter_of_nixpkgs_can_be_poisoned(installed: Installed) -> None:
    done = installed.run(installed.base, "-I", "-c", "", NIX_PYTHONPATH=installed.poison)
    assert done.returncode == 0, done.stderr
    assert installed.poisoned(), "so there would be nothing to guard against"


@pytest.mark.parametrize("variable", VARIABLES)
def test_that_of_the_services_cannot(installed: Installed, variable: str) -> None:
    words = ("-I", "-m", "storewarden.helper", "--help")
    done = installed.run(installed.python, *words, **{variable: installed.poison})
    assert done.returncode == 0, done.stderr
    assert "--allow-user" in done.stdout
    assert not installed.poisoned()


@pytest.mark.parametrize("variable", VARIABLES)
def test_nor_can_that_of_the_command(installed: Installed, variable: str) -> None:
    command = f"{installed.out}/bin/storewarden"
    done = installed.run(command, "--version", **{variable: installed.poison})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("storewarden ")
    assert not installed.poisoned()


def test_it_imports_what_it_needs_and_nothing_of_its_base(installed: Installed) -> None:
    needed = "import structlog, watchdog, psutil, sdnotify, prometheus_client, storewarden.cli"
    found = f"{needed}, sys; print(sys.prefix, 'sitecustomize' in sys.modules)"
    done = installed.run(installed.python, "-I", "-c", found)
    assert done.stdout == f"{installed.out}/libexec/storewarden False\n", done.stderr


def test_units_run_that_interpreter_and_are_else_as_they_were(installed: Installed) -> None:
    for installed_in, shipped_in in (
        (f"{installed.out}/lib/systemd/system", f"{CHECKOUT}/systemd"),
        (f"{installed.out}/share/storewarden/drop-ins", f"{CHECKOUT}/systemd/drop-ins"),
    ):
        names = os.listdir(installed_in)
        assert names
        for name in names:
            text = Path(installed_in, name).read_text(encoding="ascii")
            shipped = Path(shipped_in, name).read_text(encoding="ascii")
            assert text == shipped.replace("/usr/bin/python3", installed.python)


def test_every_unit_and_drop_in_is_installed(installed: Installed) -> None:
    there = {
        *os.listdir(f"{installed.out}/lib/systemd/system"),
        *os.listdir(f"{installed.out}/share/storewarden/drop-ins"),
    }
    every = {*os.listdir(f"{CHECKOUT}/systemd"), *os.listdir(f"{CHECKOUT}/systemd/drop-ins")}
    assert there == every - {"drop-ins", "storewarden.sysusers"}
