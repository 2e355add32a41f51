# SPDX-License-Identifier: MIT
"""Which places only root can change. What root writes or runs must lie in such places alone.

Where no other user can change any directory on the way, no name on it can be exchanged between
check and use: so it is checked once, and used by name afterwards.
"""

import os
import stat
from collections.abc import Iterable
from itertools import accumulate

from storewarden.errors import StorewardenError

_MOST_LINKS = 40
_OTHERS_WRITE = 0o022


class SetupError(StorewardenError):
    """It cannot be set up as it is; nothing more was changed."""


def missing_directories(directory: str, top: str = "/") -> tuple[str, ...]:
    """The directories that must still be made for `directory`, outermost first.

    Both as seen from `top`, where no link is followed unless it is `/`. `SetupError` where
    somebody else than root, or than this user, could change one on the way.
    """
    at, links = top.rstrip("/"), 0
    names = [name for name in directory.split("/") if name]
    _check_writable_by_us_alone(at or "/")
    while names:
        name = names.pop(0)
        here = f"{at}/{name}"
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return tuple(accumulate([here, *names], lambda path, more: f"{path}/{more}"))
        if name == "..":
            at = os.path.dirname(at)
        elif stat.S_ISLNK(found.st_mode):
            links += 1
            if top != "/" or links > _MOST_LINKS:
                raise SetupError(f"{here} is a symbolic link; not followed here")
            target = os.readlink(here)
            at = "" if target.startswith("/") else at
            names = [name for name in target.split("/") if name not in {"", "."}] + names
        else:
            _check_writable_by_us_alone(here)
            at = here
    return ()


def _check_writable_by_us_alone(directory: str) -> None:
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{directory} is in the way: it is not a directory")
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & _OTHERS_WRITE:
        raise SetupError(
            f"nothing is written below {directory}: others than root can change it"
            f" (owner uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o})"
        )


def changeable(places: Iterable[str]) -> str | None:
    """The first of these paths, and of all they lead through, that others than root can change.

    /nix/store is taken although build users may write to it: its sticky bit keeps what is root's.
    """
    whole: set[str] = set()
    for place in places:
        # The way of the name itself, and that of what it points to.
        for path in (os.path.abspath(place), os.path.realpath(place)):
            parts = [part for part in path.split("/") if part]
            whole.update(accumulate(parts, lambda above, name: f"{above}/{name}", initial=""))
    return next((path or "/" for path in sorted(whole) if _open_to_others(path or "/")), None)


def _open_to_others(path: str) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False  # sys.path names what is not there; what is above it decides
    if stat.S_ISLNK(found.st_mode):
        return found.st_uid != 0
    sticky = found.st_mode & stat.S_ISVTX and path == "/nix/store"
    return found.st_uid != 0 or bool(found.st_mode & _OTHERS_WRITE and not sticky)


def below(directory: str) -> list[str]:
    """The directory and every file in it, at any depth, but for what Python caches."""
    found = [directory]
    for place, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        found += [f"{place}/{name}" for name in (*directories, *sorted(files))]
    return found
