# SPDX-License-Identifier: MIT
"""Files as they should be, where root may write them, and what setup has written on this machine.

What root writes or runs must lie where no other user can change any directory on the way: then no
name on it can be exchanged between check and use: it is checked once, then used by name.
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import accumulate

from storewarden.config import MANIFEST
from storewarden.errors import StorewardenError
from storewarden.host import others_write

_VERSION = 1
_LARGEST = 16 * 1024 * 1024
"""Bytes of a manifest."""
_MOST_LINKS = 40


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


def make_directories(directory: str, top: str = "/") -> None:
    """Make what is missing of it. `SetupError` where others could interfere."""
    for missing in missing_directories(directory, top):
        os.mkdir(missing, 0o755)
        os.chmod(missing, 0o755)  # noqa: S103 - whatever the umask: services pass through


def settled(path: str, top: str) -> str:
    """The path with no link on the way to it, which is how directories that were made are noted.

    /etc is a link on macOS. Below a staging directory no link is followed.
    """
    directory, name = os.path.split(path)
    return path if top else f"{os.path.realpath(directory).rstrip('/')}/{name}"


def _check_writable_by_us_alone(directory: str) -> None:
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{directory} is in the way: it is not a directory")
    if found.st_uid not in {0, os.geteuid()} or others_write(directory, found):
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
    return found.st_uid != 0 or (others_write(path, found) and not sticky)


def below(directory: str) -> list[str]:
    """The directory and every file in it, at any depth, but for what Python caches."""
    found = [directory]
    for place, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != "__pycache__")
        found += [f"{place}/{name}" for name in (*directories, *sorted(files))]
    return found


@dataclass(frozen=True, slots=True)
class File:
    """A file that should be there."""

    path: str
    """Absolute, as the machine will see it; a staging directory comes in front of it."""
    content: bytes
    mode: int = 0o644
    once: bool = False
    """It is the administrator's as soon as it is there, and never replaced."""
    owner: tuple[int, int] = (0, 0)
    """User and group; the group of who called sudo is neither's."""

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


def state_at(item: Item, top: str, written: Collection[str]) -> State:
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
    make_directories(os.path.dirname(item.path), top or "/")
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
                os.fchown(file.fileno(), *item.owner)
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


@dataclass(frozen=True, slots=True)
class Manifest:
    """What setup has written here, so that it replaces and removes that and nothing else.

    It is written before what it lists, and again at the end: whenever a run is cut off, what lies
    there is known to be ours, and that the run was not ended is known too.
    """

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
            {str(path): tuple(map(str, digests)) for path, digests in document["files"].items()},
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
