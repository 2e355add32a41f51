# SPDX-License-Identifier: MIT
"""The root file system of a container: layers, of which only the uppermost is its own."""

import codecs
import os
from pathlib import Path

import pytest

from helper.bench import log_is_whole, names, run
from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.errors import StoreUnreadableError
from storewarden.host import FIRST_ALLOCATED
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore


def enter(root: Path) -> None:
    """Make that directory the root of this process."""
    codecs.lookup("ascii")  # nothing can be imported in there
    os.chroot(root)
    os.chdir("/")


@needs_root
def test_in_a_container_what_was_stranded_goes_and_what_came_with_its_image_stays(
    tmp_path: Path,
) -> None:
    for name in ("image/proc", "upper", "work", "root"):
        os.makedirs(tmp_path / name)

    def in_the_image() -> str:
        enter(tmp_path / "image")
        place = ThrowawayStore.create("/place")
        return place.strand(place.add_derivation("old")).base_name

    old = in_child(in_the_image)

    def in_the_container() -> dict[str, list[str]]:
        take_own_mounts()
        layers = f"lowerdir={tmp_path}/image,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        mount("-t", "overlay", "-o", layers, "none", f"{tmp_path}/root")
        mount("--rbind", "/proc", f"{tmp_path}/root/proc")
        enter(tmp_path / "root")
        store = StoreDir("/place/nix/store")
        place = ThrowawayStore(store, "/place/nix/var/nix", FIRST_ALLOCATED)
        new = place.strand(place.add_derivation("new")).base_name
        last = {outcome.base_name: outcome for outcome in run(place, old, new)}
        assert (old in names(place), new in names(place)) == (True, False)
        return {
            "old": [last[old].status, *last[old].reasons],
            "new": [last[new].status, *last[new].reasons],
        }

    assert in_child(in_the_container) == {
        "old": [
            "failed",
            "the file system cannot move it: on an overlay, it came with the image",
        ],
        "new": ["removed"],
    }
    assert os.path.isdir(f"{tmp_path}/image/place/nix/store/{old}")
    assert log_is_whole(f"{tmp_path}/upper/place/log/audit.jsonl")


@needs_root
def test_in_a_chroot_whose_file_system_cannot_be_told_nothing_is_removed(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "proc")

    def in_the_chroot() -> str:
        take_own_mounts()
        mount("--rbind", "/proc", f"{tmp_path}/proc")
        enter(tmp_path)
        place = ThrowawayStore.create("/place")
        path = place.strand(place.add_derivation("x")).base_name
        with pytest.raises(StoreUnreadableError) as refusal:
            run(place, path)
        assert path in names(place)
        return str(refusal.value)

    assert "which file system /place/nix/store is on cannot be told" in in_child(in_the_chroot)
