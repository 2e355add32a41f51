# SPDX-License-Identifier: MIT
"""A file system of which a directory cannot be read any more, as after a power cut."""

import os
from pathlib import Path

from disks import BLOCK, debugfs, needs_a_disk, of_a_changed_disk
from helper.bench import audit_is_whole, names, run
from helper.trees import left_private, spread
from storewarden.throwaway import ThrowawayStore


def strand(place: ThrowawayStore) -> str:
    bad = place.strand(place.add_derivation("bad")).base_name
    spread(place.path(bad), 1, 3000)
    spread(f"{place.path(bad)}/more", 20, 5)
    return bad


def spoil(image: Path, bad: str) -> None:
    """Overwrite a block in the middle of a directory."""
    block = int(debugfs(image, f"blocks /nix/store/{bad}/0").split()[3])
    with image.open("r+b") as disk:
        disk.seek(block * BLOCK)
        disk.write(os.urandom(BLOCK))


def remove_it_and_others(place: ThrowawayStore, bad: str) -> list[list[str]]:
    good = [place.strand(place.add_derivation(name)).base_name for name in ("x", "y")]
    told = [[outcome.status.value for outcome in run(place, name)] for name in (bad, *good)]
    assert names(place).isdisjoint({bad, *good})
    (private,) = left_private(place)
    assert len(os.listdir(place.path(private))) == 1, "more is left than what cannot be read"
    assert audit_is_whole(place)
    return told


@needs_a_disk
def test_a_directory_that_cannot_be_read_stops_no_other_removal(tmp_path: Path) -> None:
    assert of_a_changed_disk(tmp_path, strand, spoil, remove_it_and_others) == [
        ["taken", "partial"],
        ["taken", "removed", "partial"],
        ["taken", "removed", "partial"],
    ]
