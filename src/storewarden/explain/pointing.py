# SPDX-License-Identifier: MIT
"""From what somebody typed to an entry of the store: full paths, base names, links into it."""

import os
from dataclasses import dataclass

from storewarden.errors import StorewardenError
from storewarden.store.entries import LINKS
from storewarden.store.paths import StoreDir, StorePath

_MOST_LINKS = 40


class NotInStoreError(StorewardenError):
    """What was typed leads to nothing in the store directory."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """An entry, and how it was named."""

    asked: str
    base_name: str
    """Of a file below `.links`: with that directory."""
    inside: str = ""
    """What was named below the entry."""
    through: tuple[str, ...] = ()
    """The symbolic links that were followed, as `link -> target`."""


def point(asked: str, store_dir: StoreDir) -> Pointed:
    """The entry that `asked` leads to, whether it is there or not; `NotInStoreError` if none.

    Links are followed until they lead into the store, and not within it.
    """
    bare = "/" not in asked
    if bare and (StorePath.maybe(asked) or _is_entry(asked, store_dir)):
        return Pointed(asked, asked)
    place = _absolute(asked)
    through: list[str] = []
    while (found := _below(place, store_dir)) is None:
        step = _first_link(place)
        if step is None or len(through) == _MOST_LINKS:
            raise NotInStoreError(_refusal(asked, place, store_dir))
        link, place = step
        through.append(f"{link} -> {os.readlink(link)}")
    base_name, inside = found
    return Pointed(asked, base_name, inside, tuple(through))


def _absolute(asked: str) -> str:
    try:
        return os.path.abspath(asked)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise NotInStoreError(
            f"{asked!r} cannot be looked up from here, because the working directory is gone or"
            f" cannot be told: {reason}; name it by its full path"
        ) from cause


def _is_entry(name: str, store_dir: StoreDir) -> bool:
    plain = name not in {"", ".", ".."}
    return plain and os.path.lexists(store_dir.join(name)) and not os.path.lexists(name)


def _below(place: str, store_dir: StoreDir) -> tuple[str, str] | None:
    if not place.startswith(f"{store_dir.path}/"):
        return None
    name, _, inside = place.removeprefix(f"{store_dir.path}/").partition("/")
    if name == LINKS and inside:
        return f"{name}/{inside}", ""
    return name, inside


def _first_link(place: str) -> tuple[str, str] | None:
    """The first symbolic link on the way to `place`, and `place` by way of its target."""
    parts = place.split("/")
    for end in range(2, len(parts) + 1):
        link = "/".join(parts[:end])
        if os.path.islink(link):
            target = os.path.join(os.path.dirname(link), os.readlink(link), *parts[end:])
            return link, os.path.normpath(target)
    return None


def _refusal(asked: str, place: str, store_dir: StoreDir) -> str:
    if place == store_dir.path:
        return f"{asked!r} is the store directory itself; storewarden scan looks at all of it"
    known = "is not in" if os.path.lexists(place) else "is not there, and would not be in"
    return (
        f"{asked!r} {known} the store directory {store_dir.path}; name a store path, its base"
        " name, a lock file, or a link such as ./result"
    )
