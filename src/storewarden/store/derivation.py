# SPDX-License-Identifier: MIT
"""Which derivation an unregistered path belongs to, and which locks cover it. One place for both.

The covering locks of a path are those that every build which may write there has to hold. Where
they are known and held here, no build can be writing, whoever its build user is:

- a scratch path (form 1) of a floating output: `<drv>.<output>.lock`;
- a redirect (form 2) of a known path: the lock of the path that it stands for, or, where that
  floats, those of all outputs of its derivation;
- a floating output that was built before (2.35 on), whose path is gone: `<drv>.<output>.lock`;
- an output whose path is known before the build: its own.

A scratch path or redirect is proved by its hash, so a wrong guess cannot slip in. Read in
`startBuilder` and `acquireResources` (`tryToBuild`) of Nix 2.8.1, 2.26.4, 2.34.6 and 2.35.2.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from storewarden.errors import BadStorePathError
from storewarden.store.database import Outputs
from storewarden.store.entries import Entry, EntryKind
from storewarden.store.floating import outputs_in
from storewarden.store.paths import (
    DERIVATION_SUFFIX,
    HASH_PART_LENGTH,
    LOCK_SUFFIX,
    Deriver,
    Origin,
    StoreDir,
    StorePath,
    output_lock,
    parse_lock_name,
    path_lock,
    redirect_path,
    scratch_path,
)
from storewarden.store.store import Store

CHROOT_SUFFIX = ".chroot"
_MOST = 1 << 20


def find_origins(
    store: Store, fd: int, paths: Iterable[StorePath], names: Iterable[str], outputs: Outputs | None
) -> dict[StorePath, Origin]:
    """The origin of each of the paths that has one which can be known.

    `fd` is the store directory's; `names` are those in it, and of derivations that live temp roots
    name. One pass over them: all but the fitting ones cost a slice and a look into a dictionary.
    Without `outputs`, where the database cannot be opened, only scratch paths of form 1 are found.
    """
    bases: dict[StorePath, list[StorePath]] = {}
    for path in paths:
        bases.setdefault(path, []).append(path)
        # To that Nix copies it while it rewrites hashes (`registerOutputs`, to 2.34).
        base = StorePath.maybe(path.base_name.removesuffix(".tmp"))
        if base is not None and base != path:
            bases.setdefault(base, []).append(path)
    found: dict[StorePath, Origin] = {}
    fitting: dict[str, set[StorePath]] = {}
    for deriver, could_be in _readings(names, _possible_outputs(bases)) if bases else ():
        fitting.setdefault(could_be[0].name, set()).add(deriver.derivation)
        with suppress(BadStorePathError):
            path, origin = scratch_origin(deriver, store.store_dir)
            if path in could_be:
                found[path] = origin
    missing = bases.keys() - found
    if outputs is not None and missing:
        by_name = {path.name: fitting.get(path.name, set()) for path in missing}
        for deriver, replaced, locks in _replacing(by_name, outputs, fd):
            path = redirect_path(deriver.derivation, replaced, store.store_dir)
            if path in missing:
                # Told of twice, by two tables: no lock that either tells of is left out.
                covering = _sorted(path, *locks, *(found[path].locks if path in found else ()))
                found[path] = Origin(deriver, covering, scratch=True, replaced=replaced)
        for path in missing - found.keys():
            found |= _by_table(path, outputs)
    return {path: found[base] for base in bases.keys() & found for path in bases[base]}


def scratch_origin(deriver: Deriver, store_dir: StoreDir) -> tuple[StorePath, Origin]:
    """The scratch path of a floating output, and that it belongs to it; `BadStorePathError`."""
    path = scratch_path(deriver.derivation, deriver.output, store_dir)
    lock = output_lock(deriver.derivation, deriver.output)
    return path, Origin(deriver, _sorted(path, lock), scratch=True)


def _sorted(path: StorePath, *locks: str) -> tuple[str, ...]:
    return tuple(sorted({path_lock(path), *locks}))


def _by_table(path: StorePath, outputs: Outputs) -> dict[StorePath, Origin]:
    """The origin of what a build writes at its own place, because it is known and not there."""
    sure, traced = outputs.derivers_of(path), outputs.traced(path)
    fits = [one for drv in [*sure, *traced] if (one := _deriver(drv, path))]
    if not fits:
        return {}
    # Any of them may build it again: an unresolved derivation has a row beside its resolved one.
    locks = [output_lock(one.derivation, one.output) for one in fits if one.derivation in traced]
    return {path: Origin(fits[0], _sorted(path, *locks), scratch=False, proved=bool(sure))}


def _deriver(derivation: StorePath, path: StorePath) -> Deriver | None:
    """The output of the derivation that is called so (`outputPathName`), if one can be.

    What a database says of an output's name is not asked for: any client of nix-daemon can have
    one recorded (daemon.cc `RegisterDrvOutput`, to 2.35), and it would become a part of a file's.
    """
    stem = derivation.name.removesuffix(DERIVATION_SUFFIX)
    if path.name == stem:
        return Deriver(derivation, "out")
    output = path.name.removeprefix(f"{stem}-")
    return Deriver(derivation, output) if output not in {path.name, ""} else None


def _replacing(
    by_name: Mapping[str, set[StorePath]], outputs: Outputs, store_fd: int
) -> Iterator[tuple[Deriver, StorePath, tuple[str, ...]]]:
    """Builds that would make a path so called anew, beside the one that is there; their locks."""
    for derivation in {one for derivations in by_name.values() for one in derivations}:
        for path in outputs.paths_of(derivation):
            if deriver := _deriver(derivation, path):
                yield deriver, path, (path_lock(path),)
    for named, path in outputs.realised(by_name):
        for derivation in by_name[path.name] | ({named} if named else set()):
            if deriver := _deriver(derivation, path):
                yield deriver, path, (path_lock(path), *_floating_locks(store_fd, deriver))


def _floating_locks(store_fd: int, deriver: Deriver) -> tuple[str, ...]:
    """The locks of all floating outputs of a derivation; of that one, where it cannot be read."""
    names = {deriver.output}
    with suppress(OSError, ValueError):
        names.update(name for name, path in outputs_of(store_fd, deriver.derivation) if not path)
    return tuple(output_lock(deriver.derivation, one) for one in names)


_Outputs = dict[str, dict[str, list[StorePath]]]
"""By the stem of a derivation's name, by output: the paths looked for that it could be."""


def _possible_outputs(paths: Iterable[StorePath]) -> _Outputs:
    outputs: _Outputs = {}
    for path in paths:
        outputs.setdefault(path.name, {}).setdefault("out", []).append(path)
        for place, character in enumerate(path.name):
            stem, output = path.name[:place], path.name[place + 1 :]
            if character == "-" and stem and output not in {"", "out"}:  # that is called stem
                outputs.setdefault(stem, {}).setdefault(output, []).append(path)
    return outputs


def _readings(names: Iterable[str], outputs: _Outputs) -> Iterator[tuple[Deriver, list[StorePath]]]:
    """The derivations and outputs that `names` tell of, with the paths that each could be."""
    for name in names:
        if name.endswith(DERIVATION_SUFFIX):
            stem = name[HASH_PART_LENGTH + 1 : -len(DERIVATION_SUFFIX)]
            if stem in outputs and (derivation := StorePath.maybe(name)) is not None:
                for output, paths in outputs[stem].items():
                    yield Deriver(derivation, output), paths
        elif name.endswith(LOCK_SUFFIX) and ".drv." in name:
            for one in parse_lock_name(name):
                stem = one.locked.name.removesuffix(DERIVATION_SUFFIX)
                if one.output is not None and one.output in outputs.get(stem, {}):
                    yield Deriver(one.locked, one.output), outputs[stem][one.output]


def covering_locks(
    store: Store, store_fd: int, entry: Entry, kind: EntryKind, origin: Origin | None
) -> tuple[str, ...] | None:
    """The locks that whoever may write to an entry holds, in Nix's order; None: not known."""
    if kind is EntryKind.LOCK:
        return (entry.base_name,)
    if kind is EntryKind.CHROOT:
        return chroot_locks(store_fd, entry.base_name, store.store_dir)
    path = entry.store_path
    if path is None or kind is not EntryKind.OUTPUT or origin is None:
        return None
    return _sorted(path, *origin.locks)


def chroot_locks(store_fd: int, base_name: str, store_dir: StoreDir) -> tuple[str, ...] | None:
    """Base names of all output locks of the derivation that a chroot is called after.

    None where they cannot be told: the `.drv` is gone, is not the store owner's (a build user
    may put a file of any name there), or is not the plain `Derive([…` of derivations.cc.
    """
    derivation = StorePath.maybe(base_name.removesuffix(CHROOT_SUFFIX))
    if derivation is None or not derivation.is_derivation:
        return None
    try:
        outputs = outputs_of(store_fd, derivation)
        locks = {output_lock(derivation, output) for output, _ in outputs}
        locks |= {path_lock(store_dir.parse(path)) for _, path in outputs if path}
    except (OSError, ValueError, BadStorePathError):
        return None
    return tuple(sorted(locks)) or None


def outputs_of(store_fd: int, derivation: StorePath) -> list[tuple[str, str]]:
    """Name and full path (empty for a floating output) of each output, from the `.drv` file.

    `OSError` or `ValueError` where it is not there, or not to be believed.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(derivation.base_name, flags, dir_fd=store_fd), encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.fstat(store_fd).st_uid:
            raise ValueError("no derivation of the store owner's")
        outputs = outputs_in(file.read(_MOST))
    # An output's name becomes part of a file's name: it must be one, and no path.
    if not all(parse_lock_name(output_lock(derivation, output)) for output, _ in outputs):
        raise ValueError("an output of a name that Nix would refuse")
    return outputs
