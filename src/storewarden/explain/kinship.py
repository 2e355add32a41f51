# SPDX-License-Identifier: MIT
"""What belongs to an entry by its name: derivations, outputs, lock files."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from storewarden.errors import BadStorePathError
from storewarden.explain.locks import Around, LockFile, store_lock
from storewarden.registrations import origins_of
from storewarden.store.derivation import CHROOT_SUFFIX, outputs_of
from storewarden.store.paths import (
    LOCK_SUFFIX,
    Deriver,
    Origin,
    StorePath,
    parse_lock_name,
    path_lock,
    scratch_path,
)


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a derivation: its path where a build knows it beforehand, or a scratch path."""

    name: str
    path: str
    scratch: bool
    there: bool


def origin_of(around: Around, name: str) -> Origin | None:
    """What the path is an output of, by the database or as a scratch path; and its locks."""
    path, store = StorePath.maybe(name), around.store
    if path is None or path.is_derivation or name.endswith(CHROOT_SUFFIX):
        return None
    return origins_of(store, around.store_fd, [path], around.names).get(path)


def derivers_of(name: str, origin: Origin | None) -> tuple[Deriver, ...]:
    """What it is an output of; of a lock file, what it locks."""
    locked = [Deriver(r.locked, r.output) for r in parse_lock_name(name) if r.output is not None]
    return tuple(dict.fromkeys([*([origin.deriver] if origin else ()), *locked]))


def declared(around: Around, name: str) -> Iterator[Output]:
    """The outputs of the derivation of that name; none where it cannot be read."""
    derivation, store_dir = StorePath.maybe(name), around.store.store_dir
    if derivation is None or not derivation.is_derivation:
        return
    try:
        found = outputs_of(around.store_fd, derivation)
    except (OSError, ValueError):
        return
    for output, path in found:
        full = path
        if not path:
            with suppress(BadStorePathError):
                full = store_dir.join(scratch_path(derivation, output, store_dir).base_name)
        there = bool(full) and os.path.lexists(full)
        yield Output(output, full, not path, there)


def covering(around: Around, name: str, origin: Origin | None) -> Iterator[LockFile]:
    """The lock files that cover it, and exist; of a lock file, itself."""
    if name.endswith(LOCK_SUFFIX) and parse_lock_name(name):
        names = [name]
    else:
        names = list(_lock_names(around, name))
        names += origin.locks if origin else ()
    for one in dict.fromkeys(names):
        yield from filter(None, [store_lock(around, one)])


def _lock_names(around: Around, name: str) -> Iterator[str]:
    path = StorePath.maybe(name.removesuffix(CHROOT_SUFFIX))
    if path is None:
        return
    yield path_lock(path)
    if path.is_derivation:
        # All that lie there: which outputs there are cannot always be read.
        yield from (
            n for n in around.names if n.startswith(f"{path.base_name}.") and n.endswith(".lock")
        )
        for output in declared(around, path.base_name):
            if known := StorePath.maybe(output.path.rpartition("/")[2]):
                yield path_lock(known)
