# SPDX-License-Identifier: MIT
"""Names as Nix reads them: what parses, what does not, and what a lock file's name says."""

import hashlib
import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storewarden.errors import BadStorePathError
from storewarden.store.floating import NIX32, nix32
from storewarden.store.paths import (
    LockName,
    StoreDir,
    StorePath,
    covered_paths,
    output_lock,
    parse_lock_name,
    path_lock,
    scratch_path,
)

HASH = "0c" * 16
ALLOWED = string.ascii_letters + string.digits + "+-._?="

names = st.text(ALLOWED, min_size=1, max_size=211).filter(
    lambda name: name not in {".", ".."} and not name.startswith((".-", "..-"))
)


@given(hash_part=st.text(NIX32, min_size=32, max_size=32), name=names)
def test_what_nix_can_write_parses_into_its_parts(hash_part: str, name: str) -> None:
    path = StorePath(f"{hash_part}-{name}")
    assert (path.hash_part, path.name) == (hash_part, name)
    assert path.is_derivation == name.endswith(".drv")


@given(st.text())
@example(f"{HASH}-a\n")
@example(f"{HASH}-é")
@example(f"{HASH}-\u0661")
def test_nothing_parses_that_could_leave_the_store_directory(text: str) -> None:
    path = StorePath.maybe(text)
    if path is not None:
        assert set(text) <= set(ALLOWED)
        assert os.path.normpath(f"/s/{text}") == f"/s/{text}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".links",
        "-a",
        "lost+found",
        HASH,
        f"{HASH}-",
        f"{HASH}_a",
        f"{HASH}a",
        f"{HASH[:-1]}-a",
        f"{HASH}0-a",
        f"{HASH.upper()}-a",
        f"{'e' * 32}-a",
        f"{'o' * 32}-a",
        f"{'u' * 32}-a",
        f"{'t' * 32}-a",
        f"{HASH}-.",
        f"{HASH}-..",
        f"{HASH}-.-a",
        f"{HASH}-..-a",
        f"{HASH}-{'a' * 212}",
        f"{HASH}-a/b",
        f"{HASH}-a b",
        f"{HASH}-a\0",
        f"{HASH}-a\n",
        f"\n{HASH}-a",
        f"{HASH}-a\udcff",
        f"{HASH}-a~",
        f"{HASH}-a*",
        f"/nix/store/{HASH}-a",
        f"tmp-{HASH}-a",
    ],
)
def test_what_nix_would_refuse_is_refused(name: str) -> None:
    assert StorePath.maybe(name) is None
    with pytest.raises(BadStorePathError):
        StorePath(name)


@pytest.mark.parametrize("name", ["a", ".a", "...", "..a", "-", "a?=+_b", "a" * 211, "._"])
def test_what_nix_takes_is_taken(name: str) -> None:
    assert StorePath(f"{HASH}-{name}").name == name


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "nix/store",
        "./nix",
        "/nix/store/",
        "/nix//store",
        "//nix/store",
        "/nix/./store",
        "/nix/../store",
        "/nix/store/..",
        "/nix/st\0re",
        "~/store",
    ],
)
def test_a_store_directory_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(BadStorePathError):
        StoreDir(path)


def test_a_full_path_parses_only_directly_inside_its_store_directory() -> None:
    store_dir = StoreDir("/nix/store")
    assert store_dir.parse(f"/nix/store/{HASH}-a") == StorePath(f"{HASH}-a")
    assert store_dir.join("x") == "/nix/store/x"
    others = [f"/gnu/store/{HASH}-a", f"{HASH}-a", f"/nix/store/{HASH}-a/bin", "/nix/store", ""]
    for path in [*others, f"/nix/store//{HASH}-a", f"/nix/store/{HASH}-a/", f"nix/store/{HASH}-a"]:
        with pytest.raises(BadStorePathError):
            store_dir.parse(path)


def test_the_lock_of_a_known_path_names_that_path_alone() -> None:
    path = StorePath(f"{HASH}-hello-2.12")
    assert path_lock(path) == f"{HASH}-hello-2.12.lock"
    assert parse_lock_name(path_lock(path)) == (LockName(path, None),)


def test_the_lock_of_a_floating_output_names_derivation_and_output_too() -> None:
    derivation = StorePath(f"{HASH}-a.drv")
    assert output_lock(derivation, "dev") == f"{HASH}-a.drv.dev.lock"
    assert parse_lock_name(output_lock(derivation, "dev")) == (
        LockName(StorePath(f"{HASH}-a.drv.dev"), None),
        LockName(derivation, "dev"),
    )


def test_a_lock_name_with_two_derivations_in_it_gives_every_reading() -> None:
    readings = parse_lock_name(f"{HASH}-a.drv.b.drv.c.lock")
    assert set(readings) == {
        LockName(StorePath(f"{HASH}-a.drv.b.drv.c"), None),
        LockName(StorePath(f"{HASH}-a.drv"), "b.drv.c"),
        LockName(StorePath(f"{HASH}-a.drv.b.drv"), "c"),
    }


def test_the_lock_of_a_derivation_itself_is_no_output_lock() -> None:
    assert parse_lock_name(f"{HASH}-a.drv.lock") == (LockName(StorePath(f"{HASH}-a.drv"), None),)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".lock",
        "a.lock",
        f"{HASH}-.lock",
        f"{HASH}.lock",
        f"{HASH}-a",
        f"{HASH}-a.lock\n",
        f"{HASH}-a.lock~",
        f"{HASH}-a.LOCK",
        f"{HASH}-a/b.lock",
        f"{HASH}-{'a' * 212}.lock",
    ],
)
def test_what_is_no_lock_name_has_no_readings(name: str) -> None:
    assert parse_lock_name(name) == ()


@given(stem=st.text(ALLOWED, min_size=1, max_size=60), output=st.text(ALLOWED, min_size=1))
def test_the_derivation_of_an_output_lock_is_always_among_the_readings(
    stem: str, output: str
) -> None:
    derivation = StorePath.maybe(f"{HASH}-{stem}.drv")
    if derivation is None or StorePath.maybe(f"{derivation.base_name}.{output}") is None:
        return
    assert LockName(derivation, output) in parse_lock_name(output_lock(derivation, output))


@given(st.binary(min_size=20, max_size=20))
def test_nix32_keeps_every_bit(digest: bytes) -> None:
    text = nix32(digest)
    assert len(text) == 32
    number = 0
    for character in text:
        number = number * 32 + NIX32.index(character)
    assert number.to_bytes(20, "little") == digest


# An empty store directory is none.


def test_no_directory_at_all_is_refused() -> None:
    with pytest.raises(BadStorePathError):
        StoreDir("")


# Scratch paths: the formula against what real Nix printed, and against an independent one.


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
