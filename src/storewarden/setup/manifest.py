# SPDX-License-Identifier: MIT
"""What setup has written on this machine, so that it replaces and removes that and nothing else.

It is written before what it lists, and again at the end: whenever a run is cut off, what lies
there is known to be ours, and that the run was not ended is known too.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from storewarden.setup.files import File, put
from storewarden.setup.trust import SetupError, missing_directories

MANIFEST = "/etc/storewarden/manifest.json"
_VERSION = 1
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was written."""

    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By path the digests of all that setup may have put there and not removed again."""
    directories: tuple[str, ...] = ()
    """Made by setup."""
    user: str = ""
    """Made by setup; empty if it was there before."""
    ended: bool = True
    """Whether the run that wrote this came to its end."""


def read_manifest(top: str) -> Manifest | None:
    """What was written below `top`; None if nothing was. `SetupError` if it is not understood."""
    place = f"{top}{MANIFEST}"
    if missing_directories(os.path.dirname(MANIFEST), top or "/"):
        return None
    try:
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            document = json.loads(file.read(_LARGEST))
        if document["version"] != _VERSION:
            raise SetupError(f"{place} is of another version of storewarden; use that one")
        return Manifest(
            {str(path): tuple(map(str, told)) for path, told in document["files"].items()},
            tuple(map(str, document["directories"])),
            str(document["user"]),
            ended=document["ended"] is True,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise SetupError(f"cannot read {place}, nothing is changed: {cause}") from cause


def write_manifest(manifest: Manifest, top: str) -> None:
    """Replace the manifest as a whole."""
    document = {"version": _VERSION, **asdict(manifest)}
    text = json.dumps(document, indent=1, sort_keys=True)
    put(File(MANIFEST, f"{text}\n".encode()), top)
