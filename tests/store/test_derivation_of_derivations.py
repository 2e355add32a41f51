# SPDX-License-Identifier: MIT
"""Derivations that make derivations (`x.drv.drv`): their locks have every reading too."""

from storewarden.store.paths import (
    Deriver,
    LockName,
    StorePath,
    output_lock,
    parse_lock_name,
    scratch_path,
)
from storewarden.throwaway import ThrowawayStore
from sweeps import origins_of

DRV = StorePath(f"{'1c' * 16}-hello.drv.drv")


def test_the_lock_of_a_derivation_of_a_derivation_names_it() -> None:
    assert LockName(DRV, "out") in parse_lock_name(output_lock(DRV, "out"))


def test_the_scratch_path_of_a_derivation_of_a_derivation_has_its_deriver(
    place: ThrowawayStore,
) -> None:
    wanted, names = scratch_path(DRV, "out", place.store_dir), [output_lock(DRV, "out")]
    found = origins_of(place.as_store(), -1, [wanted], names)
    assert found[wanted].deriver == Deriver(DRV, "out")
