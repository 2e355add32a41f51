# SPDX-License-Identifier: MIT
"""The ways in which people have storewarden, each by its very tool, and without a network."""

import os
import shutil
import subprocess
from collections.abc import Callable

from lab.machine import Machine
from lab.places import lab
from lab.service import Done, python_version
from real import namespace as ns
from real.furniture import CHECKOUT
from real.rig import Rig

EARLIER = "135742a"
"""The commit whose installations are upgraded."""
_PARTS = ("src", "systemd", "launchd", "man", "completions", "nix", "pyproject.toml")
_TEXTS = ("README.md", "LICENSE")
_NIX = """
derivation {
  name = "storewarden";
  system = builtins.currentSystem;
  builder = "/bin/bash";
  PATH = "/usr/bin:/bin";
  interpreter = "/usr/bin/python3";
  sitePackages = "lib/pythonVERSION/site-packages";
  platform = "linux";
  args = [ "-euc" ''
    mkdir -p "$out/lib/pythonVERSION"
    cp -r SOURCE/site "$out/$sitePackages"
    cd SOURCE
    source nix/install.sh
    install_all
  '' ];
}
"""
"""Without nixpkgs: pip's site-packages, and then what nix/package.nix does (nix/install.sh)."""


def sources(machine: Machine) -> tuple[str, str]:
    """Copies of what was there earlier and of this checkout, an ordinary user's.

    Where the checkout has no such history the earlier one is this one, with other content.
    """
    home = f"{machine.base}/home/{machine.rig.user}"
    old, new = f"{home}/old", f"{home}/new"
    for place in (old, new, f"{machine.base}/wheels"):
        shutil.rmtree(place, ignore_errors=True)
    os.makedirs(old)
    kept = shutil.ignore_patterns("__pycache__")
    for part in _PARTS:
        whole = f"{CHECKOUT}/{part}"
        if os.path.isdir(whole):
            shutil.copytree(whole, f"{new}/{part}", ignore=kept)
        else:
            shutil.copy(whole, f"{new}/{part}")
    for text in _TEXTS:
        shutil.copy(f"{CHECKOUT}/{text}", f"{new}/{text}")
    archive = ["git", "-C", CHECKOUT, "archive", EARLIER, *_PARTS, *_TEXTS]
    found = subprocess.run(archive, capture_output=True, check=False)
    if found.returncode == 0:
        subprocess.run(["tar", "-x", "-C", old], input=found.stdout, check=True)
    else:
        shutil.copytree(new, old, dirs_exist_ok=True)
        with open(f"{old}/src/storewarden/scan.py", "a", encoding="ascii") as file:
            file.write("# earlier\n")
    subprocess.run(["cp", "-r", f"{lab()}/wheels", machine.base], check=True)
    subprocess.run(["chown", "-R", "1500:1500", old, new], check=True)
    return old, new


def typed(rig: Rig, command: str, user: str = "alice") -> Done:
    """What comes of that, typed into a shell of that user's."""
    clean = ["env", "-u", "PYTHONPATH", "-u", "PYTHONPYCACHEPREFIX", f"HOME={_home(rig)}"]
    offline = ["PIP_NO_INDEX=1", f"PIP_FIND_LINKS={rig.base}/wheels", "PIP_ROOT_USER_ACTION=ignore"]
    cache = f"XDG_CACHE_HOME={rig.base}/scratch/cache"
    words = [*clean, *offline, cache, "sh", "-c", f"cd {_home(rig)} && {command}"]
    return ns.run(rig.namespace, words, user=user, seconds=120)


def must(rig: Rig, command: str) -> str:
    """What that says, which must succeed."""
    done = typed(rig, command)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout


def _home(rig: Rig) -> str:
    return f"{rig.base}/home/alice"


def checkout(rig: Rig, source: str) -> str:
    """A virtual environment in it, as `make` makes it; gives what is typed, as all of these do."""
    must(rig, f"python3 -m venv {source}/.venv && {source}/.venv/bin/pip install -q -e {source}")
    return f"{source}/.venv/bin/storewarden"


def pipx(rig: Rig, source: str) -> str:
    """`pipx install`, Debian's."""
    must(rig, f"pipx install --force {source}")
    return f"{_home(rig)}/.local/bin/storewarden"


def uv(rig: Rig, source: str) -> str:
    """`uv tool install`."""
    links = f"--no-index --find-links {rig.base}/wheels --python /usr/bin/python3"
    # What the earlier one wrote as root into it could not be removed; pip leaves it compiled.
    compiled = "--compile-bytecode" if source.endswith("/old") else ""
    must(rig, f"{rig.base}/wheels/uv tool install --force --reinstall {compiled} {links} {source}")
    return f"{_home(rig)}/.local/bin/storewarden"


def nix(rig: Rig, source: str) -> str:
    """`nix-build`, with the link to the result that keeps it from the collector."""
    must(
        rig,
        f"python3 -m venv {source}/v && {source}/v/bin/pip install -q -t {source}/site {source}",
    )
    text = _NIX.replace("VERSION", python_version(rig)).replace("SOURCE", source)
    with open(f"{source}/closure.nix", "w", encoding="ascii") as file:
        file.write(text)
        os.chown(file.fileno(), 1500, 1500)
    must(rig, f"nix-build {source}/closure.nix -o {_home(rig)}/result")
    return f"{_home(rig)}/result/bin/storewarden"


Way = Callable[[Rig, str], str]
WAYS: dict[str, tuple[Way, ...]] = {
    "bookworm": (checkout,),
    "trixie": (pipx, nix),
    "forky": (uv,),
}
"""Which are tried on which root; `STOREWARDEN_LAB_WAYS=all`: each on each."""


def ways(suite: str) -> tuple[Way, ...]:
    """Those to try there."""
    if os.environ.get("STOREWARDEN_LAB_WAYS") == "all":
        return (checkout, pipx, uv, nix)
    return WAYS[suite]
