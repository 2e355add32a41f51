# SPDX-License-Identifier: MIT
"""Which derivation and output an unregistered path is the scratch path of. Pure.

The answer is proved by the hash, so a wrong guess cannot slip in. It comes from lock files
(`<drv>.drv.<output>.lock`), from `.drv` files, and from live temp roots, all given as names.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storewarden.store.errors import BadStorePathError
from storewarden.store.paths import (
    DERIVATION_SUFFIX,
    HASH_PART_LENGTH,
    LOCK_SUFFIX,
    StoreDir,
    StorePath,
    parse_lock_name,
    scratch_path,
)


@dataclass(frozen=True, slots=True)
class Deriver:
    """A derivation and the name of one of its outputs."""

    derivation: StorePath
    output: str


def find_derivers(
    wanted: Iterable[StorePath], names: Iterable[str], store_dir: StoreDir
) -> dict[StorePath, Deriver]:
    """The deriver of each path in `wanted` that is a scratch path of some derivation in `names`.

    One pass over `names`, which may be every name of a large store: all but the fitting ones
    cost one slice and one look into a dictionary.
    """
    outputs = _possible_outputs(wanted)
    found: dict[StorePath, Deriver] = {}
    if not outputs:
        return found
    for name in names:
        for derivation, output in _readings(name, outputs):
            try:
                path = scratch_path(derivation, output, store_dir)
            except BadStorePathError:
                continue
            if path in outputs[derivation.name.removesuffix(DERIVATION_SUFFIX)].get(output, ()):
                found[path] = Deriver(derivation, output)
    return found


_Outputs = dict[str, dict[str, list[StorePath]]]
"""By the stem of a derivation's name, by output: the wanted paths that it could be."""


def _possible_outputs(wanted: Iterable[StorePath]) -> _Outputs:
    outputs: _Outputs = {}
    for path in wanted:
        outputs.setdefault(path.name, {}).setdefault("out", []).append(path)
        for place, character in enumerate(path.name):
            stem, output = path.name[:place], path.name[place + 1 :]
            if character == "-" and stem and output:
                outputs.setdefault(stem, {}).setdefault(output, []).append(path)
    return outputs


def _readings(name: str, outputs: _Outputs) -> Iterator[tuple[StorePath, str]]:
    if name.endswith(DERIVATION_SUFFIX):
        stem = name[HASH_PART_LENGTH + 1 : -len(DERIVATION_SUFFIX)]
        if stem in outputs and (derivation := StorePath.maybe(name)) is not None:
            for output in outputs[stem]:
                yield derivation, output
    elif name.endswith(LOCK_SUFFIX) and ".drv." in name:
        for reading in parse_lock_name(name):
            stem = reading.locked.name.removesuffix(DERIVATION_SUFFIX)
            if reading.output is not None and reading.output in outputs.get(stem, {}):
                yield reading.locked, reading.output
