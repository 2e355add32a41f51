# SPDX-License-Identifier: MIT
"""Commands for a person to copy: for the store that is meant, and quoted for a shell. Pure."""

import re
import shlex
from dataclasses import dataclass

from storewarden.readable import shown

_STORE_DIR, _STATE_DIR = "/nix/store", "/nix/var/nix"
REMOVE = "sudo storewarden scan --yes"
SET_UP = "sudo storewarden setup"
DECLARE = "services.storewarden.enable = true;"
"""What sets the service up where a system of modules owns the machine (`host.declared_by`)."""
REPAIRING = "--option experimental-features ''"
"""What Nix must be told to repair anything.

Where ca-derivations is enabled Nix 2.8 says that a path is corrupted or missing, does nothing and
ends with 0: the realisation tells it that the output is valid (derivation-goal.cc
`checkPathValidity`). Without it floating content-addressed outputs are refused, and not repaired
either (tests/real/test_explain.py).
"""
_PROGRAM = re.compile(r"(^|&& |\| xargs )((?:sudo )?)(storewarden|nix(?:-[a-z]+)?)(?= )")
_PLACE = re.compile(rf"(?<=\s)({_STORE_DIR}|{_STATE_DIR})(?!\w)")


@dataclass(frozen=True, slots=True)
class ThisStore:
    """The store that commands are about; those for the usual one are written without options."""

    store_dir: str = _STORE_DIR
    state_dir: str = _STATE_DIR

    def command(self, text: str) -> str:
        """A command for the usual store turned into the same for this one."""
        if self == USUAL:
            return text
        store, state = shlex.quote(self.store_dir), shlex.quote(self.state_dir)
        environment = f"env NIX_STORE_DIR={store} NIX_STATE_DIR={state}"
        turned = _PROGRAM.sub(
            lambda m: m[0] if m[3] == "storewarden" else f"{m[1]}{m[2]}{environment} {m[3]}", text
        )
        ours = text.removeprefix("sudo ").startswith("storewarden ")
        return turned + (f" --store-dir {store} --state-dir {state}" if ours else "")

    def template(self, text: str) -> str:
        """The same of one in which only Nix's usual directories stand, and no path yet."""
        places = {_STORE_DIR: self.store_dir, _STATE_DIR: self.state_dir}
        return self.command(_PLACE.sub(lambda found: shlex.quote(places[found[0]]), text))


USUAL = ThisStore()


def can_be_copied(command: str) -> bool:
    """Whether it reaches a terminal as it is: what is shown escaped would mean something else."""
    return shown(command) == command


def repair_path(path: str) -> str:
    """The command that fetches or builds a damaged or missing path again."""
    return f"sudo nix-store --repair-path {shlex.quote(path)} {REPAIRING}"
