# SPDX-License-Identifier: MIT
"""Derivations that make derivations (`x.drv.drv`): their locks have every reading too."""

from storewarden.store.derivation import find_origins
from storewarden.store.paths import (
    Deriver,
    LockName,
    StoreDir,
    StorePath,
    output_lock,
    parse_lock_name,
    scratch_path,
)

STORE = StoreDir("/nix/store")
DRV = StorePath(f"{'1c' * 16}-hello.drv.drv")


def test_the_lock_of_a_derivation_of_a_derivation_names_it() -> None:
    assert LockName(DRV, "out") in parse_lock_name(output_lock(DRV, "out"))


def test_the_scratch_path_of_a_derivation_of_a_derivation_has_its_deriver() -> None:
    wanted, names = scratch_path(DRV, "out", STORE), [output_lock(DRV, "out")]
    found = find_origins([wanted], names, store_fd=-1, store_dir=STORE, state_dir="/nonexistent")
    assert found[wanted].deriver == Deriver(DRV, "out")
