# SPDX-License-Identifier: MIT
"""Names in a store directory, exactly as Nix reads them or stricter. Pure.

Rules from libstore/path.cc `StorePath::StorePath` and `checkName` (Nix 2.34.6). One is stricter:
before 2.35.2 Nix did not look at the character between hash part and name; here it must be `-`.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from storewarden.errors import BadStorePathError
from storewarden.store.floating import NIX32, rewritten_name, scratch_name

HASH_PART_LENGTH = 32
_BASE_NAME = re.compile(rf"([{NIX32}]{{32}})-([0-9A-Za-z+\-._?=]{{1,211}})", re.ASCII)
_DOTS = re.compile(r"\.\.?(-.*)?", re.ASCII | re.DOTALL)
DERIVATION_SUFFIX = ".drv"
LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True, order=True)
class StorePath:
    """A store path without its store directory; it exists only if its base name parsed."""

    base_name: str

    def __post_init__(self) -> None:
        """Refuse what Nix would refuse: `BadStorePathError`."""
        match = _BASE_NAME.fullmatch(self.base_name)
        if match is None or _DOTS.fullmatch(match[2]):
            raise BadStorePathError(f"{self.base_name!r} is not the base name of a store path")

    @classmethod
    def maybe(cls, base_name: str) -> Self | None:
        """The store path of that base name, or None where it names none."""
        try:
            return cls(base_name)
        except BadStorePathError:
            return None

    @property
    def hash_part(self) -> str:
        """The first 32 characters; the garbage collector compares temp roots by it."""
        return self.base_name[:HASH_PART_LENGTH]

    @property
    def name(self) -> str:
        """What follows the hash part and its dash."""
        return self.base_name[HASH_PART_LENGTH + 1 :]

    @property
    def is_derivation(self) -> bool:
        """Whether the name ends in `.drv`."""
        return self.name.endswith(DERIVATION_SUFFIX)


@dataclass(frozen=True, slots=True)
class StoreDir:
    """The store directory as Nix names it (`/nix/store`), which is also part of every hash."""

    path: str

    def __post_init__(self) -> None:
        """Refuse what is not a plain absolute path: a slash too many makes every path unknown."""
        parts = self.path.split("/")
        plain = not parts[0] and len(parts) > 1 and all(parts[1:]) and not {".", ".."} & set(parts)
        if not plain or not self.path.isprintable():
            raise BadStorePathError(f"{self.path!r} is not an absolute, plain store directory")

    def join(self, base_name: str) -> str:
        """The full path of an entry."""
        return f"{self.path}/{base_name}"

    def parse(self, path: str) -> StorePath:
        """The store path of a full path; `BadStorePathError` where it lies elsewhere."""
        directory, _, base_name = path.rpartition("/")
        if directory != self.path:
            raise BadStorePathError(f"{path!r} is not in the store directory {self.path}")
        return StorePath(base_name)


@dataclass(frozen=True, slots=True)
class Deriver:
    """A derivation and the name of one of its outputs."""

    derivation: StorePath
    output: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an unregistered path comes from, as far as builds may write there."""

    deriver: Deriver
    locks: tuple[str, ...]
    """Base names of the covering locks, sorted as pathlocks.cc takes them."""
    scratch: bool
    """Whether only a build that was cut off leaves it, whoever owns it: forms 1 and 2."""
    proved: bool = True
    """Whether it is certain that no lock is missing: by a hash, or by a table that no client of
    nix-daemon can write what it likes to. Else the claims of the build user are asked as well."""
    replaced: StorePath | None = None
    """The path that a redirect stands for."""

    @property
    def rooted(self) -> tuple[StorePath, ...]:
        """What a living builder of it has a temp root on."""
        return tuple(path for path in (self.deriver.derivation, self.replaced) if path)


@dataclass(frozen=True, slots=True)
class LockName:
    """What a lock file's name says: a derivation and its output, or else the path it locks."""

    locked: StorePath
    output: str | None


def parse_lock_name(base_name: str) -> tuple[LockName, ...]:
    """What `base_name` may lock, by libstore's naming (`<path>.lock`, `<drv>.<output>.lock`).

    Empty where it is no lock file's name. A name such as `<hash>-a.drv.b.lock` can be read both
    as the lock of output `b` and as that of a path called `a.drv.b`, so both are given.
    """
    if not base_name.endswith(LOCK_SUFFIX):
        return ()
    locked = StorePath.maybe(base_name.removesuffix(LOCK_SUFFIX))
    if locked is None:
        return ()
    readings = [LockName(locked, None)]
    for found in re.finditer(r"\.drv(?=\.)", locked.base_name):
        derivation = StorePath.maybe(locked.base_name[: found.end()])
        output = locked.base_name[found.end() + 1 :]
        if derivation is not None and output:
            readings.append(LockName(derivation, output))
    return tuple(readings)


def output_lock(derivation: StorePath, output: str) -> str:
    """Base name of the lock that covers a floating output (2.4 and later, unknown final path)."""
    return f"{derivation.base_name}.{output}{LOCK_SUFFIX}"


def path_lock(path: StorePath) -> str:
    """Base name of the lock that covers a path known before the build."""
    return f"{path.base_name}{LOCK_SUFFIX}"


def scratch_path(derivation: StorePath, output: str, store_dir: StoreDir) -> StorePath:
    """Where an unsandboxed build of a floating output writes before its final path is known.

    `derivation` is the resolved one. `BadStorePathError` where Nix could not build such a name
    either.
    """
    return StorePath(scratch_name(derivation.base_name, output, store_dir.path))


def redirect_path(derivation: StorePath, path: StorePath, store_dir: StoreDir) -> StorePath:
    """Where an unsandboxed build of an output writes while `path`, which it would get, is in use.

    libstore `makeFallbackPath(path)`, the same from 2.4 to 2.36: `--check`, `--rebuild`,
    `--repair`, and the valid outputs of a derivation of which others are missing.
    """
    new = rewritten_name(derivation.base_name, path.base_name, path.name, store_dir.path)
    return StorePath(new)


def covered_paths(base_name: str, store_dir: StoreDir) -> Iterator[StorePath]:
    """The paths that a lock file of that name may cover, in all its readings."""
    for reading in parse_lock_name(base_name):
        if reading.output is None:
            yield reading.locked
        else:
            with suppress(BadStorePathError):
                yield scratch_path(reading.locked, reading.output, store_dir)
