# SPDX-License-Identifier: MIT
"""Scratch paths: the formula against what real Nix printed, and against an independent one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.errors import BadStorePathError
from storewarden.store.paths import (
    StoreDir,
    StorePath,
    covered_paths,
    output_lock,
    path_lock,
    scratch_path,
)

ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz"
STORE = StoreDir("/nix/store")
TEST = "233sb81zil031fiiqqrxycgpf2k3br7g-test.drv"
VECTORS = [
    (TEST, "out", "x80vbsl3hs31md8vk95ibvyjii8dy325-test"),
    (TEST, "dev", "ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev"),
    (
        "jvx58013h4h40aqg555a1aasbkaan9lc-anstyle-1.0.14.drv",
        "out",
        "plyj3jl87ncq6752q4iaivk8v8kdpxql-anstyle-1.0.14",
    ),
    (
        "sd3x4c7p4fbchcg6gsd7myf0bvljxp7m-bootstrap-tools.drv",
        "out",
        "pjnsf6l8xbkp1pdkg62kp2dzp7q31f2n-bootstrap-tools",
    ),
    (
        "17zf7d3fh2ajwp9axs12lyh6khy8qdr6-bootstrap-stage0-binutils-wrapper-.drv",
        "out",
        "a6szxq3w8fxha41z1m7621nmpvwvbh2p-bootstrap-stage0-binutils-wrapper-",
    ),
    (
        "phsmcx0dcil8fhbar22k4mdl3b9l446a-expand-response-params.drv",
        "out",
        "1fa70l9kdbbg8y5hqr4y1svlkhk63ah0-expand-response-params",
    ),
]


@pytest.mark.parametrize(("derivation", "output", "scratch"), VECTORS)
def test_it_is_the_path_that_nix_itself_uses(derivation: str, output: str, scratch: str) -> None:
    assert scratch_path(StorePath(derivation), output, STORE) == StorePath(scratch)


def _as_nix_writes_it(derivation: str, output: str, store_dir: str) -> str:
    """The same once more, byte by byte as nix32 is described, sharing no code with ours."""
    stem = derivation[33:-4]
    name = stem if output == "out" else f"{stem}-{output}"
    text = f"rewrite:{derivation}:name:{output}:sha256:{'0' * 64}:{store_dir}:{name}"
    folded = [0] * 20
    for place, byte in enumerate(hashlib.sha256(text.encode()).digest()):
        folded[place % 20] ^= byte
    characters = []
    for number in range(31, -1, -1):
        at, shift = divmod(number * 5, 8)
        after = folded[at + 1] if at < 19 else 0
        characters.append(ALPHABET[(folded[at] | after << 8) >> shift & 31])
    return f"{''.join(characters)}-{name}"


@given(
    stem=st.from_regex(r"[a-z][a-z0-9.+-]{0,40}", fullmatch=True),
    output=st.sampled_from(["out", "dev", "lib", "bin", "a_b", "x.y"]),
    store_dir=st.sampled_from(["/nix/store", "/gnu/store", "/home/me/nix/store"]),
)
def test_it_agrees_with_an_independent_reading_of_the_formula(
    stem: str, output: str, store_dir: str
) -> None:
    derivation = f"{'1' * 32}-{stem}.drv"
    found = scratch_path(StorePath(derivation), output, StoreDir(store_dir))
    assert found.base_name == _as_nix_writes_it(derivation, output, store_dir)


def test_every_part_of_it_counts() -> None:
    one = StorePath(TEST)
    other = StorePath("333sb81zil031fiiqqrxycgpf2k3br7g-test.drv")
    found = {
        scratch_path(one, "out", STORE),
        scratch_path(one, "dev", STORE),
        scratch_path(other, "out", STORE),
        scratch_path(one, "out", StoreDir("/other/store")),
    }
    assert len(found) == 4


@pytest.mark.parametrize("output", ["a b", "é", "x/y", "..\n", "o" * 212])
def test_an_output_that_nix_could_not_name_has_no_scratch_path(output: str) -> None:
    with pytest.raises(BadStorePathError):
        scratch_path(StorePath(TEST), output, STORE)


def test_the_lock_of_an_output_covers_its_scratch_path() -> None:
    covered = set(covered_paths(output_lock(StorePath(TEST), "dev"), STORE))
    assert StorePath("ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev") in covered


def test_the_lock_of_a_path_covers_that_path_alone() -> None:
    path = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")
    assert list(covered_paths(path_lock(path), STORE)) == [path]
    assert list(covered_paths(path.base_name, STORE)) == []


@pytest.mark.parametrize("name", ["..drv", ".drv", "...drv"])
def test_a_lock_whose_output_could_have_no_name_covers_only_the_path_so_called(name: str) -> None:
    base_name = f"{'1' * 32}-{name}.out"
    assert list(covered_paths(f"{base_name}.lock", STORE)) == [StorePath(base_name)]
