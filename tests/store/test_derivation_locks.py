# SPDX-License-Identifier: MIT
"""The locks of a derivation's outputs, read from `.drv` files as Nix writes them."""

import os
from collections.abc import Callable

import pytest

from storewarden.store.derivation import chroot_locks
from storewarden.store.entries import open_directory
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore

REST = '[],["/nix/store/x"],"x86_64-linux","/bin/sh",["-c","echo"],[("name","x")])'
Locks = Callable[[str], tuple[str, ...] | None]


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    """The name of a derivation that is not written yet."""
    return place.invent("hello-2.12.drv")


@pytest.fixture
def locks_of(place: ThrowawayStore, derivation: StorePath) -> Locks:
    """The locks that a chroot of a derivation with that content has."""

    def locks(content: str) -> tuple[str, ...] | None:
        with open(place.path(derivation.base_name), "w", encoding="utf-8") as file:
            file.write(content)
        return ask(place, f"{derivation.base_name}.chroot")

    return locks


def ask(place: ThrowawayStore, chroot: str) -> tuple[str, ...] | None:
    """The locks of the chroot of that name."""
    fd = open_directory(place.store_dir.path)
    try:
        return chroot_locks(fd, chroot, place.store_dir)
    finally:
        os.close(fd)


def test_a_floating_output_has_the_lock_of_the_derivation(
    locks_of: Locks, derivation: StorePath
) -> None:
    content = f'Derive([("dev","","r:sha256",""),("out","","r:sha256","")],{REST}'
    assert locks_of(content) == tuple(
        f"{derivation.base_name}.{output}.lock" for output in ("dev", "out")
    )


def test_a_known_output_has_the_lock_of_its_path_too(
    place: ThrowawayStore, locks_of: Locks, derivation: StorePath
) -> None:
    outputs = [place.invent("hello-2.12"), place.invent("hello-2.12-man")]
    first, second = (place.path(path.base_name) for path in outputs)
    content = f'Derive([("man","{second}","",""),("out","{first}","","")],{REST}'
    assert set(locks_of(content) or ()) == {
        f"{outputs[0].base_name}.lock",
        f"{outputs[1].base_name}.lock",
        f"{derivation.base_name}.man.lock",
        f"{derivation.base_name}.out.lock",
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Derive(",
        f"Derive([],{REST}",
        'Derive([("out","","","")]',
        f'Derive([("out","","","",)],{REST}',
        f'Derive([("out","","","") ],{REST}',
        f'Derive([("out","","","")("dev","","","")],{REST}',
        f'Derive([("out","","")],{REST}',
        f'Derive([("","","","")],{REST}',
        f'Derive([("o\\"ut","","","")],{REST}',
        f'Derive([("out","/elsewhere/{"0" * 32}-x","","")],{REST}',
        f'Derive([("out","/","","")],{REST}',
        f'DrvWithVersion("xp-dyn-drv",[("out","","","")],{REST}',
        f' Derive([("out","","","")],{REST}',
        f'\ufeffDerive([("out","","","")],{REST}',
    ],
)
def test_what_is_no_plain_derivation_has_locks_that_cannot_be_told(
    locks_of: Locks, content: str
) -> None:
    assert locks_of(content) is None


def test_what_is_no_text_has_locks_that_cannot_be_told(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    with open(place.path(derivation.base_name), "wb") as file:
        file.write(b'Derive([("out\xff","","","")],')
    assert ask(place, f"{derivation.base_name}.chroot") is None


def test_a_derivation_that_is_absent_or_no_file_has_locks_that_cannot_be_told(
    place: ThrowawayStore, locks_of: Locks, derivation: StorePath
) -> None:
    chroot = f"{derivation.base_name}.chroot"
    assert ask(place, chroot) is None
    assert locks_of(f'Derive([("out","","","")],{REST}') is not None
    path = place.path(derivation.base_name)
    os.rename(path, place.path("other"))
    os.symlink("other", path)
    assert ask(place, chroot) is None
    os.unlink(path)
    os.mkfifo(path)
    assert ask(place, chroot) is None
    os.unlink(path)
    os.mkdir(path)
    assert ask(place, chroot) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_derivation_that_a_build_user_put_there_is_not_believed(
    place: ThrowawayStore, locks_of: Locks, derivation: StorePath
) -> None:
    content = f'Derive([("out","","","")],{REST}'
    assert locks_of(content) is not None
    os.chown(place.path(derivation.base_name), place.builder, place.builder)
    assert ask(place, f"{derivation.base_name}.chroot") is None


@pytest.mark.parametrize("name", ["", ".chroot", "x.drv.chroot", f"{'0' * 32}-x.chroot", "../x"])
def test_a_name_that_is_no_chroot_of_a_derivation_has_none(
    place: ThrowawayStore, name: str
) -> None:
    assert ask(place, name) is None


def test_a_derivation_of_a_megabyte_of_outputs_is_read_at_once(locks_of: Locks) -> None:
    outputs = ",".join(f'("out{number}","","","")' for number in range(30_000))
    assert len(locks_of(f"Derive([{outputs}],{REST}") or ()) == 30_000
    too_many = ",".join(f'("out{number}","","","")' for number in range(60_000))
    assert locks_of(f"Derive([{too_many}],{REST}") is None


# An output's name in a `.drv` becomes a file's name: it must be one, and no path.


@pytest.mark.parametrize(
    "output", ["a/../../../x", "a/b", "/etc/x", "a\nb", "a\0b", "\u00e9", "a b", "o" * 300]
)
def test_an_output_that_nix_could_not_name_has_no_lock(place: ThrowawayStore, output: str) -> None:
    name = place.invent("hello.drv").base_name
    with open(place.path(name), "w", encoding="utf-8") as file:
        file.write(f'Derive([("{output}","","","")],[],')
    fd = open_directory(place.store_dir.path)
    try:
        assert chroot_locks(fd, f"{name}.chroot", place.store_dir) is None
    finally:
        os.close(fd)
