# SPDX-License-Identifier: MIT
"""The flake: with nixpkgs' library what all of it evaluates to, without it what can be told."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nix.evaluating import CHECKOUT, Nix, library

OUTPUTS = {
    "apps",
    "checks",
    "darwinModules",
    "devShells",
    "formatter",
    "nixosModules",
    "overlays",
    "packages",
}
PER_SYSTEM = OUTPUTS - {"darwinModules", "nixosModules", "overlays"}
SYSTEMS = {"x86_64-linux", "aarch64-linux", "aarch64-darwin", "x86_64-darwin"}
STAND_IN = """
{
  outputs = _: rec {
    lib = import ./lib;
    legacyPackages = lib.genAttrs [ %s ] (
      system:
      import ./nixpkgs.nix {
        inherit system;
        library = ./.;
        dependencies = "%s";
        python = { interpreter = "%s"; sitePackages = "%s"; };
      }
    );
  };
}
"""


def nix_files() -> list[str]:
    found = subprocess.run(
        ["find", CHECKOUT, "-name", ".*", "-prune", "-o", "-name", "*.nix", "-print"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [path.removeprefix(f"{CHECKOUT}/") for path in sorted(found.stdout.split()) if path]


@pytest.fixture
def flakes(nix: Nix, tmp_path: Path) -> tuple[str, str]:
    """References to this flake, and to one in the place of nixpkgs that has its library."""
    stand_in = tmp_path / "nixpkgs"
    shutil.copytree(f"{library()}/lib", stand_in / "lib")
    shutil.copy(f"{CHECKOUT}/tests/nix/nixpkgs.nix", stand_in)
    systems = " ".join(f'"{system}"' for system in sorted(SYSTEMS))
    python = nix.python
    text = STAND_IN % (systems, f"{nix.top}/dependencies", python.path, python.site_packages)
    (stand_in / "flake.nix").write_text(text, encoding="ascii")
    own = tmp_path / "storewarden"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
    shutil.copytree(CHECKOUT, own, ignore=left_out)
    return f"path:{own}", f"path:{stand_in}"


def shown(nix: Nix, flakes: tuple[str, str]) -> dict[str, Any]:
    own, stand_in = flakes
    options = ["--override-input", "nixpkgs", stand_in, "--no-write-lock-file"]
    done = nix.run("nix", "flake", "show", "--json", own, *options)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("name", nix_files())
def test_every_file_parses(nix: Nix, name: str) -> None:
    done = nix.run("nix-instantiate", "--parse", f"{CHECKOUT}/{name}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", nix_files())
def test_every_file_names_its_license(name: str) -> None:
    text = Path(CHECKOUT, name).read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: MIT\n")


def test_its_outputs_are_there_without_any_nixpkgs(nix: Nix) -> None:
    outputs = f'(import {CHECKOUT}/flake.nix).outputs {{ self = {{ }}; nixpkgs = throw "unused"; }}'
    assert set(nix.value("-E", f"builtins.attrNames ({outputs})")) == OUTPUTS
    assert nix.value("-E", f"builtins.isFunction ({outputs}).overlays.default") is True
    for kind in ("nixosModules", "darwinModules"):
        modules = f"({outputs}).{kind}"
        assert nix.value("-E", f"builtins.attrNames {modules}") == ["default", "storewarden"]
        assert nix.value("-E", f"builtins.isFunction (import {modules}.default)") is True


def test_it_pins_the_nixpkgs_that_it_names() -> None:
    pin = json.loads(Path(CHECKOUT, "flake.lock").read_text(encoding="ascii"))["nodes"]["nixpkgs"]
    flake = Path(CHECKOUT, "flake.nix").read_text(encoding="ascii")
    original, locked = pin["original"], pin["locked"]
    named = f"github:{original['owner']}/{original['repo']}/{original['ref']}"
    assert f'inputs.nixpkgs.url = "{named}";' in flake
    assert (locked["owner"], locked["repo"]) == (original["owner"], original["repo"])
    assert re.fullmatch(r"[0-9a-f]{40}", locked["rev"])
    assert re.fullmatch(r"sha256-[A-Za-z0-9+/]{43}=", locked["narHash"])
    assert locked["lastModified"] > 1_780_000_000


def test_without_flakes_it_is_the_same_pin(nix: Nix) -> None:
    function = nix.value("-E", f"builtins.functionArgs (import {CHECKOUT}/default.nix)")
    assert function == {"pkgs": True}


def test_the_story_in_virtual_machines_is_a_test_of_nixos(nix: Nix) -> None:
    lib = f'(import "{library()}/lib")'
    story = nix.value(
        "-E",
        f"""
        let story = import {CHECKOUT}/nix/tests/story.nix {{ lib = {lib}; }};
        in {{ inherit (story) name testScript; nodes = builtins.attrNames story.nodes; }}
    """,
    )
    assert story["name"] == "storewarden"
    script = ast.parse(story["testScript"])
    used = {node.id for node in ast.walk(script) if isinstance(node, ast.Name)}
    assert set(story["nodes"]) == {"machine", "remount", "sandbox", "upgrade"}
    assert set(story["nodes"]) <= used


def test_nix_shows_all_of_it(nix: Nix, flakes: tuple[str, str]) -> None:
    document = shown(nix, flakes)
    assert document.keys() == OUTPUTS
    for kind in PER_SYSTEM:
        assert document[kind].keys() == SYSTEMS, kind
    assert set(document["apps"]["x86_64-linux"]) == {"default", "setup"}
    assert set(document["checks"]["aarch64-linux"]) == {"package", "vm"}
    assert set(document["checks"]["aarch64-darwin"]) == {"package"}
    assert document["packages"]["x86_64-linux"]["default"]["name"] == "storewarden-0.1.0"


def test_a_system_that_nixpkgs_has_given_up_is_left_out(nix: Nix, flakes: tuple[str, str]) -> None:
    place = Path(flakes[1].removeprefix("path:"), "lib/systems/flake-systems.nix")
    place.write_text(place.read_text(encoding="utf-8").replace('"x86_64-darwin"', ""))
    assert shown(nix, flakes)["packages"].keys() == SYSTEMS - {"x86_64-darwin"}
