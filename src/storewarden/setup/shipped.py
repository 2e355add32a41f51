# SPDX-License-Identifier: MIT
"""The files that come with the program: units, property lists, the first configuration.

In a checkout they lie at its top, where people look for them; in a wheel, inside the package.
"""

import os

import storewarden
from storewarden.setup.trust import SetupError

PACKAGE = os.path.dirname(os.path.realpath(storewarden.__file__))
_CHECKOUT = os.path.dirname(os.path.dirname(PACKAGE))
KINDS = ("systemd", "launchd")


def shipped(name: str) -> bytes:
    """The content of `systemd/...` or `launchd/...`."""
    with open(_place(name), "rb") as file:
        return file.read()


def all_shipped() -> dict[str, bytes]:
    """Every such file by its name."""
    names = []
    for kind in KINDS:
        top = _place(kind)
        for place, _, files in os.walk(top):
            names += [f"{kind}{place.removeprefix(top)}/{name}" for name in files]
    return {name: shipped(name) for name in sorted(names)}


def _place(name: str) -> str:
    for top in (PACKAGE, _CHECKOUT):
        if os.path.exists(f"{top}/{name}"):
            return f"{top}/{name}"
    raise SetupError(f"{name} did not come with this program; install it anew")
