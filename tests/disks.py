# SPDX-License-Identifier: MIT
"""Disks of their own, in a file, that can be changed below the file system."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helper.child import in_child, mount, take_own_mounts
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore

BLOCK = 4096
"""Bytes of a block."""
needs_a_disk = pytest.mark.skipif(
    os.geteuid() != 0
    or not (shutil.which("mkfs.ext4") and shutil.which("debugfs"))
    or not os.path.exists("/dev/loop-control"),
    reason="a disk is made by root with e2fsprogs, and mounted by a loop device",
)


def of_a_changed_disk(
    directory: Path,
    make: Callable[[ThrowawayStore], str],
    change: Callable[[Path, str], object],
    look: Callable[[ThrowawayStore, str], Any],
) -> Any:  # noqa: ANN401 - anything that JSON can carry
    """What `look` gives of a throwaway store on an ext4, after `change` to it.

    Both are given what `make` gave, a base name. The disk is changed while it is not mounted, and
    mounted for a process of its own alone.
    """
    image, disk = directory / "image", directory / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(48 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), str(image)], check=True)

    def with_own_mounts() -> Any:  # noqa: ANN401
        take_own_mounts()
        mount("-o", "loop", str(image), str(disk))
        place = ThrowawayStore.create(str(disk))
        place.add_valid("valid")
        made, builder = make(place), place.builder
        place.close()
        subprocess.run(["umount", str(disk)], check=True)
        change(image, made)
        mount("-o", "loop,errors=continue", str(image), str(disk))
        store = StoreDir(f"{disk}/nix/store")
        return look(ThrowawayStore(store, f"{disk}/nix/var/nix", builder), made)

    return in_child(with_own_mounts)


def debugfs(image: Path, request: str) -> str:
    """What debugfs(8) says to that, or does, on a disk that is not mounted."""
    command = ["debugfs", "-w", "-R", request, str(image)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
