# SPDX-License-Identifier: MIT
"""The derivation of a scratch path, found by name and proved by hash; no database needed."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from storewarden.store.paths import (
    Deriver,
    LockName,
    StoreDir,
    StorePath,
    output_lock,
    parse_lock_name,
    scratch_path,
)
from storewarden.throwaway import ThrowawayStore
from sweeps import origins_of

STORE = StoreDir("/nix/store")
HASH = "1c" * 16
DRV = StorePath(f"{HASH}-hello-2.12.drv")
OUT = scratch_path(DRV, "out", STORE)
DEV = scratch_path(DRV, "dev", STORE)
Find = Callable[[Iterable[StorePath], Iterable[str], StoreDir], dict[StorePath, Deriver]]


@pytest.fixture
def find(place: ThrowawayStore) -> Find:
    """The derivers of paths by names alone: the database knows of no derivation."""

    def found(
        wanted: Iterable[StorePath], names: Iterable[str], store_dir: StoreDir
    ) -> dict[StorePath, Deriver]:
        store = replace(place.as_store(), store_dir=store_dir)
        origins = origins_of(store, -1, wanted, [*names])
        assert all(origin.scratch for origin in origins.values())
        return {path: origin.deriver for path, origin in origins.items()}

    return found


def test_a_lock_names_the_derivation_and_output_of_its_scratch_path(find: Find) -> None:
    names = [output_lock(DRV, "out"), output_lock(DRV, "dev")]
    found = find([OUT, DEV], names, STORE)
    assert found == {OUT: Deriver(DRV, "out"), DEV: Deriver(DRV, "dev")}


def test_a_derivation_names_the_scratch_paths_of_its_outputs(find: Find) -> None:
    found = find([OUT, DEV], [DRV.base_name], STORE)
    assert found == {OUT: Deriver(DRV, "out"), DEV: Deriver(DRV, "dev")}


def test_a_derivation_of_the_same_name_and_another_hash_is_no_deriver(find: Find) -> None:
    other = f"{'2c' * 16}-hello-2.12.drv"
    assert find([OUT, DEV], [other, f"{other}.out.lock"], STORE) == {}


def test_the_lock_of_another_output_is_no_deriver(find: Find) -> None:
    assert find([OUT], [output_lock(DRV, "dev")], STORE) == {}
    assert find([DEV], [output_lock(DRV, "out")], STORE) == {}


def test_another_store_directory_has_other_scratch_paths(find: Find) -> None:
    assert find([OUT], [DRV.base_name], StoreDir("/other/store")) == {}


@pytest.mark.parametrize(
    ("stem", "output"),
    [
        ("a", "out"),
        ("a-b", "b"),
        ("a-dev", "dev"),
        ("a", "b.drv.c"),
        ("a.drv.b", "out"),
        ("bootstrap-stage0-binutils-wrapper-", "out"),
        ("bootstrap-stage0-binutils-wrapper-", "dev"),
        ("-", "dev"),
        ("a--", "lib_x"),
    ],
)
def test_awkward_names_are_read_right(find: Find, stem: str, output: str) -> None:
    derivation = StorePath(f"{HASH}-{stem}.drv")
    wanted = scratch_path(derivation, output, STORE)
    by_lock = find([wanted], [output_lock(derivation, output)], STORE)
    assert by_lock == {wanted: Deriver(derivation, output)}


def test_a_name_with_a_dash_is_tried_as_out_and_as_another_output(find: Find) -> None:
    plain = StorePath(f"{HASH}-hello-dev.drv")
    both = [scratch_path(plain, "out", STORE), scratch_path(DRV, "dev", STORE)]
    found = find(both, [plain.base_name, DRV.base_name], STORE)
    assert found == {both[0]: Deriver(plain, "out"), both[1]: Deriver(DRV, "dev")}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".drv",
        "x.drv",
        f"{HASH}.drv",
        f"{HASH}-.drv",
        f"{HASH}_hello-2.12.drv",
        f"{HASH}-hello-2.12.drv\n",
        f"{HASH}-hello-2.12.drv.chroot",
        f"{HASH}-hello-2.12.drv.lock",
        f"{HASH}-hello-2.12.drv..lock",
        f"{HASH.upper()}-hello-2.12.drv",
        f"{HASH}-hello-2.12.drv.out.lock\udcff",
        "\udcff" * 33 + "hello-2.12.drv",
        f"tmp-{HASH}-hello-2.12.drv",
    ],
)
def test_hostile_names_lead_nowhere(find: Find, name: str) -> None:
    assert find([OUT, DEV], [name], STORE) == {}


def test_a_derivation_whose_output_could_have_no_name_is_passed_over(find: Find) -> None:
    names = [f"{HASH}-.drv", f"{HASH}-..drv", f"{HASH}-..drv.out.lock", DRV.base_name]
    wanted = [OUT, StorePath(f"{HASH}-.drv.x")]
    assert find(wanted, names, STORE) == {OUT: Deriver(DRV, "out")}


def test_nothing_wanted_or_no_names_finds_nothing(find: Find) -> None:
    assert find([], [DRV.base_name], STORE) == {}
    assert find([OUT], [], STORE) == {}


def test_a_store_full_of_derivations_of_one_name_takes_no_long_time(find: Find) -> None:
    names = [f"{number:032d}-hello-2.12.drv" for number in range(10_000)]
    wanted = [StorePath(f"{number:032d}-hello-2.12") for number in range(100)]
    before = time.process_time()
    found = find([*wanted, OUT], [*names, DRV.base_name], STORE)
    assert found == {OUT: Deriver(DRV, "out")}
    assert time.process_time() - before < 5


# Derivations that make derivations (`x.drv.drv`): their locks have every reading too.


DRV_OF_DRV = StorePath(f"{'1c' * 16}-hello.drv.drv")


def test_the_lock_of_a_derivation_of_a_derivation_names_it() -> None:
    assert LockName(DRV_OF_DRV, "out") in parse_lock_name(output_lock(DRV_OF_DRV, "out"))


def test_the_scratch_path_of_a_derivation_of_a_derivation_has_its_deriver(
    place: ThrowawayStore,
) -> None:
    wanted, names = (
        scratch_path(DRV_OF_DRV, "out", place.store_dir),
        [output_lock(DRV_OF_DRV, "out")],
    )
    found = origins_of(place.as_store(), -1, [wanted], names)
    assert found[wanted].deriver == Deriver(DRV_OF_DRV, "out")
