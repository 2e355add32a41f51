# SPDX-License-Identifier: MIT
"""Files as they should be, what is there instead, and how one becomes the other."""

import hashlib
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from storewarden.setup.trust import missing_directories


@dataclass(frozen=True, slots=True)
class File:
    """A file that should be there."""

    path: str
    """Absolute, as the machine will see it; a staging directory comes in front of it."""
    content: bytes
    mode: int = 0o644
    once: bool = False
    """It is the administrator's as soon as it is there, and never replaced."""

    def digest(self) -> str:
        """What a manifest calls this content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link that should be there."""

    path: str
    target: str
    once = False

    def digest(self) -> str:
        """What a manifest calls a link to this target; no file's content is called so."""
        return f"-> {self.target}"


Item = File | Link


class State(StrEnum):
    """What is there in the place of an item."""

    ABSENT = "new"
    RIGHT = "as it should be"
    OLDER = "changed"
    """We wrote it, and it is to be something else now."""
    OTHERS = "not ours"
    """We did not write it, or somebody has changed it since."""


def digest_at(place: str) -> str | None:
    """What a manifest would call what is there; None if nothing is."""
    try:
        found = os.lstat(place)
        if stat.S_ISLNK(found.st_mode):
            return f"-> {os.readlink(place)}"
        if not stat.S_ISREG(found.st_mode):
            return "neither file nor link"
        with open(os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def state_of(item: Item, top: str, written: Collection[str]) -> State:
    """Compare with what is there; `written` are the digests of what we ever put in its place."""
    place = f"{top}{item.path}"
    digest = digest_at(place)
    if digest is None:
        return State.ABSENT
    owner = os.geteuid() if top else 0
    right = digest == item.digest() and _fits(item, os.lstat(place), owner)
    if right or item.once:
        return State.RIGHT
    return State.OLDER if digest in written else State.OTHERS


def _fits(item: Item, found: os.stat_result, owner: int) -> bool:
    if isinstance(item, Link):
        return True
    return stat.S_IMODE(found.st_mode) == item.mode and found.st_uid == owner


def put(item: Item, top: str) -> None:
    """Make the item be there, whole or not at all. `SetupError` where others could interfere."""
    place = f"{top}{item.path}"
    directory = os.path.dirname(item.path)
    for missing in missing_directories(directory, top or "/"):
        os.mkdir(missing, 0o755)
        os.chmod(missing, 0o755)  # noqa: S103 - whatever the umask: services pass through
    draft = draft_of(place)
    with suppress(FileNotFoundError):
        os.unlink(draft)  # of a run that was interrupted
    if isinstance(item, Link):
        os.symlink(item.target, draft)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(item.content)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), 0, 0)  # not the group of who called sudo
            os.fchmod(file.fileno(), item.mode)
            file.flush()
            os.fsync(file.fileno())
    os.rename(draft, place)
    sync_directory(os.path.dirname(place))


def take_away(path: str, top: str) -> None:
    """Remove that file or link, and what Python made of it if it is a module."""
    directory, name = os.path.split(path)
    if missing_directories(directory, top or "/"):
        return
    place = f"{top}{path}"
    for one in (draft_of(place), place, *_cached(place)):
        with suppress(FileNotFoundError):
            os.unlink(one)
    with suppress(OSError):
        if name.endswith(".py"):
            os.rmdir(f"{top}{directory}/__pycache__")


def draft_of(place: str) -> str:
    """Where a file lies until it is whole."""
    directory, name = os.path.split(place)
    return f"{directory}/.{name}.storewarden-new"


def _cached(place: str) -> list[str]:
    directory, name = os.path.split(place)
    if not name.endswith(".py"):
        return []
    cache, stem = f"{directory}/__pycache__", name.removesuffix(".py")
    try:
        names = os.listdir(cache)
    except (FileNotFoundError, NotADirectoryError):
        return []
    ours = [one for one in names if one.startswith(f"{stem}.cpython-") and one.endswith(".pyc")]
    return [f"{cache}/{one}" for one in ours]


def sync_directory(directory: str) -> None:
    """Have the names in it survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
