# SPDX-License-Identifier: MIT
"""What may lie where a file is wanted."""

import os
from pathlib import Path


def put(place: Path, what: str) -> None:
    """A link to `elsewhere` beside it, a directory, or a pipe that nobody writes to."""
    match what:
        case "a link":
            place.symlink_to(place.parent / "elsewhere")
        case "a directory":
            place.mkdir()
        case "a pipe":
            os.mkfifo(place)
