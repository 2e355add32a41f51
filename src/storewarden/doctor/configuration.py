# SPDX-License-Identifier: MIT
"""The files that Nix has its settings from, and whether this user may read all of them.

What Nix may not read it goes on without, and does not say so (libutil config.cc, 2.8): what it
tells then are its defaults, while nix-daemon, which is root, builds by the file.
"""

import os
from collections.abc import Iterator, Sequence

CONFIGURATION = ("/etc/nix/nix.conf", "/etc/xdg/nix/nix.conf")
"""Those of the system. A user's own, which Nix is not let see here, are not nix-daemon's."""
_MOST_BYTES = 1 << 20


def hidden(first: Sequence[str] = CONFIGURATION) -> str:
    """The first of those files, and of what they include, that may not be read; empty if none.

    `OSError` where one is no file, or the disk fails.
    """
    waiting, seen = list(first), set[str]()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(_MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            return path
        waiting += included(text, os.path.dirname(path))
    return ""


def included(text: str, directory: str) -> Iterator[str]:
    """The files that a configuration includes, as Nix resolves their names."""
    for line in text.split("\n"):
        match line.partition("#")[0].split():
            case ["include" | "!include", name]:
                yield os.path.normpath(os.path.join(directory, name))
