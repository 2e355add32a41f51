# SPDX-License-Identifier: MIT
"""What NixOS would write to /etc for the module, really built, to be read by tests."""

import os
from dataclasses import dataclass
from pathlib import Path

from nix.evaluating import Nix, words
from storewarden.setup.code import shipped

UNITS = ("storewarden.service", "storewarden-helper.socket", "storewarden-helper.service")
ENABLED = "services.storewarden.enable = true;"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A directory as /etc."""

    top: str

    def text(self, name: str) -> str:
        return Path(self.top, name).read_text(encoding="ascii")

    def unit(self, name: str) -> str:
        return self.text(f"systemd/system/{name}")

    def lines(self, name: str) -> list[str]:
        """What a unit or drop-in says, without comments and empty lines."""
        return [line for line in self.unit(name).splitlines() if line and line[0] not in "#["]

    def drop_ins(self) -> dict[str, str]:
        """The text of every shipped drop-in that is in force, by the name that it is shipped by."""
        found = {}
        for unit in UNITS:
            place = f"{self.top}/systemd/system/{unit}.d"
            for name in os.listdir(place) if os.path.isdir(place) else ():
                if name != "overrides.conf":
                    assert name.startswith("10-"), f"{name} would come after overrides.conf"
                    found[name.removeprefix("10-")] = self.unit(f"{unit}.d/{name}")
        return found

    def interpreter(self) -> str:
        """What the units run."""
        [command] = [one for one in self.lines(UNITS[0]) if one.startswith("ExecStart=")]
        return command.removeprefix("ExecStart=").split()[0]


def render(nix: Nix, settings: str = "", *, nixpkgs: str = "") -> Rendered:
    """Of a configuration in which storewarden is enabled, and those lines of a module stand."""
    configuration = f"{{ {ENABLED} {settings} }}"
    return Rendered(nix.build(*words(nix, configuration, nixpkgs=nixpkgs), "-A", "etc"))


def shipped_with(interpreter: str, name: str) -> str:
    """The text of `systemd/NAME` with another interpreter."""
    return shipped(f"systemd/{name}").decode("ascii").replace("/usr/bin/python3", interpreter)
