# SPDX-License-Identifier: MIT
"""Names as Nix reads them: what parses, what does not, and what a lock file's name says."""

import os
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storewarden.errors import BadStorePathError
from storewarden.store.paths import (
    NIX32,
    LockName,
    StoreDir,
    StorePath,
    nix32,
    output_lock,
    parse_lock_name,
    path_lock,
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
