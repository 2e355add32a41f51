# SPDX-License-Identifier: MIT
"""Versions of Nix and of what descends from it, as they print them. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum

_PRINTED = re.compile(
    r"nix(?:-[a-z]{1,20})? \(([^()\n]{1,80})\) ([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(\S*)",
    re.ASCII,
)


class Flavour(StrEnum):
    """Whose Nix it is."""

    NIX = "Nix"
    LIX = "Lix"
    DETERMINATE = "Determinate Nix"


@dataclass(frozen=True, slots=True)
class NixVersion:
    """A version; of Determinate Nix that of the Nix which it is made from."""

    flavour: Flavour
    number: tuple[int, int, int]
    text: str
    """As people call it: `2.34.6`, `3.20.0 (Nix 2.34.6)`."""
    early: bool = False
    """Made before the release of that number (`2.35.0pre20260801_88b09c6`)."""

    @property
    def name(self) -> str:
        """Whose and which: `Determinate Nix 3.20.0 (Nix 2.34.6)`."""
        return f"{self.flavour} {self.text}"


def parse_version(printed: str) -> NixVersion | None:
    """What the first line of `nix --version` says; None if that is not understood.

    `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.95.0`, `nix (Determinate Nix 3.20.0) 2.34.6`.
    """
    match = _PRINTED.fullmatch(printed.partition("\n")[0].strip())
    if match is None:
        return None
    whose, rest = match[1], match[5]
    number = (int(match[2]), int(match[3]), int(match[4] or 0))
    text = ".".join(part for part in match.group(2, 3, 4) if part is not None) + rest
    early = rest.startswith("pre")
    if whose.startswith("Determinate Nix"):
        own = whose.removeprefix("Determinate Nix").strip()
        return NixVersion(Flavour.DETERMINATE, number, f"{own} (Nix {text})".strip(), early)
    if whose.startswith("Lix"):
        return NixVersion(Flavour.LIX, number, text, early)
    return NixVersion(Flavour.NIX, number, text, early) if whose == "Nix" else None
