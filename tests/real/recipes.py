# SPDX-License-Identifier: MIT
"""What is built: a derivation of slow.nix, and how Nix is asked for it."""

from dataclasses import dataclass

from real.rig import Rig


@dataclass(frozen=True, slots=True)
class Recipe:
    """A derivation. Two recipes of one name in the same store are the same build."""

    name: str
    kind: str = "ca"
    outputs: tuple[str, ...] = ("out",)
    ticks: int = 600
    hostile: bool = False
    sandbox: bool = False
    """In the lab only: the machine's own programs are not those that a sandbox shows."""


def arguments(rig: Rig, recipe: Recipe) -> list[str]:
    """What nix-build and nix-instantiate are given for it."""
    given = {
        "kind": recipe.kind,
        "name": recipe.name,
        "outputs": " ".join(recipe.outputs),
        "ticks": str(recipe.ticks),
        "hostile": "yes" if recipe.hostile else "no",
        "signals": f"{rig.base}/signals",
        "outside": f"{rig.base}/outside",
    }
    options = [word for name, value in given.items() for word in ("--argstr", name, value)]
    if recipe.sandbox:
        programs = "/bin=/opt/builder/bin /usr/bin=/opt/builder/bin"
        shown = f"{programs} {rig.base}/signals {rig.base}/outside"
        options += ["--option", "sandbox", "true", "--option", "sandbox-fallback", "false"]
        options += ["--option", "sandbox-paths", shown]
    return [f"{rig.base}/source/tests/real/slow.nix", *options]


def client_of(rig: Rig, recipe: Recipe) -> str:
    """The user who builds it."""
    # Only a user whom the daemon trusts may ask for another sandbox setting.
    return "trusty" if recipe.sandbox else rig.user
