# SPDX-License-Identifier: MIT
"""An output's name in a `.drv` becomes a file's name: it must be one, and no path."""

import os

import pytest

from storewarden.store.derivation import chroot_locks
from storewarden.store.entries import open_directory
from storewarden.throwaway import ThrowawayStore


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
