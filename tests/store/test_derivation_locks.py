# SPDX-License-Identifier: MIT
"""The locks of a derivation's outputs, read from `.drv` files as Nix writes them."""

import os
from collections.abc import Callable

import pytest

from storewarden.store.derivation import chroot_locks, covering_locks
from storewarden.store.entries import EntryKind, entry_of, open_directory
from storewarden.store.paths import Deriver, Origin, StorePath, output_lock
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
    locks = [
        f"{outputs[0].base_name}.lock",
        f"{outputs[1].base_name}.lock",
        f"{derivation.base_name}.man.lock",
        f"{derivation.base_name}.out.lock",
    ]
    assert locks_of(content) == tuple(sorted(locks)), "the order in which Nix takes them"


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


def test_a_pipe_that_says_what_a_derivation_would_is_not_believed(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    path = place.path(derivation.base_name)
    os.mkfifo(path)
    kept = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open(path, "w", encoding="utf-8") as pipe:
            pipe.write(f'Derive([("out","","","")],{REST}')
        assert ask(place, f"{derivation.base_name}.chroot") is None
    finally:
        os.close(kept)


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


def test_what_says_it_is_a_derivation_and_is_not_called_one_has_none(place: ThrowawayStore) -> None:
    path = place.add_valid("x", f'Derive([("out","","","")],{REST}')
    assert ask(place, f"{path.base_name}.chroot") is None


# An output's name in a `.drv` becomes a file's name: it must be one, and no path.


@pytest.mark.parametrize(
    "output", ["a/../../../x", "a/b", "/etc/x", "a\nb", "a\0b", "\u00e9", "a b", "o" * 300]
)
def test_an_output_that_nix_could_not_name_has_no_lock(place: ThrowawayStore, output: str) -> None:
    name = place.invent("hello.drv").base_name
    with open(place.path(name), "w", encoding="utf-8") as file:
        file.write(f'Derive([("out","","",""),("{output}","","","")],[],')
    fd = open_directory(place.store_dir.path)
    try:
        assert chroot_locks(fd, f"{name}.chroot", place.store_dir) is None
    finally:
        os.close(fd)


# Which locks cover an entry, by its kind and by where it comes from.


def covering(
    place: ThrowawayStore, name: str, kind: EntryKind, origin: Origin | None
) -> tuple[str, ...] | None:
    """The locks that cover the entry of that name."""
    fd = open_directory(place.store_dir.path)
    try:
        entry = entry_of(name, os.lstat(place.path(name)))
        return covering_locks(place.as_store(), fd, entry, kind, origin)
    finally:
        os.close(fd)


def test_a_lock_file_is_covered_by_itself(place: ThrowawayStore, derivation: StorePath) -> None:
    lock = output_lock(derivation, "out")
    place.add_lock(lock)
    assert covering(place, lock, EntryKind.LOCK, None) == (lock,)


def test_a_chroot_is_covered_by_the_locks_of_its_derivation(
    place: ThrowawayStore, locks_of: Locks, derivation: StorePath
) -> None:
    locks, chroot = locks_of(f'Derive([("out","","","")],{REST}'), f"{derivation.base_name}.chroot"
    os.mkdir(place.path(chroot))
    assert locks == (output_lock(derivation, "out"),)
    assert covering(place, chroot, EntryKind.CHROOT, None) == locks


def test_an_output_is_covered_by_the_locks_of_its_origin_and_its_own_in_the_order_of_nix(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    path = place.invent("hello-2.12")
    place.add_output(path)
    others = tuple(output_lock(derivation, f"out{number}") for number in range(5))
    origin = Origin(Deriver(derivation, "out"), others, scratch=True)
    locks = tuple(sorted((*others, f"{path.base_name}.lock")))
    assert covering(place, path.base_name, EntryKind.OUTPUT, origin) == locks
    for kind, known in ((EntryKind.OUTPUT, None), (EntryKind.OUTPUT_OF_ROOT, origin)):
        assert covering(place, path.base_name, kind, known) is None


def test_what_is_called_after_no_path_has_locks_that_cannot_be_told(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    place.add_file("stranger")
    origin = Origin(Deriver(derivation, "out"), (), scratch=True)
    assert covering(place, "stranger", EntryKind.OUTPUT, origin) is None
