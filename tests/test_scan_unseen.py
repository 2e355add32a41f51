# SPDX-License-Identifier: MIT
"""Entries that the disk does not let anybody look at: a note each, and the rest goes on."""

import os
from pathlib import Path

import pytest

from command import open_desk, report
from command import run as run_command
from disks import debugfs, needs_a_disk, of_a_changed_disk
from helper.bench import audit_is_whole, names, request, run_requests
from storewarden.observe import observe
from storewarden.protocol import RemoveRequest
from storewarden.scan import glance, sweep
from storewarden.store.entries import EntryKind, FileId
from storewarden.store.paths import output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import found

pytestmark = needs_a_disk
GOOD = ("good-1", "good-2")


def strand(place: ThrowawayStore) -> str:
    for name in GOOD:
        place.strand(place.add_derivation(name))
    bad = place.strand(place.add_derivation("bad"))
    place.add_lock(path_lock(bad))
    return bad.base_name


def spoil(image: Path, bad: str) -> None:
    """An inode that is of no type: ext4 looks at it, and gives an error from then on."""
    debugfs(image, f"set_inode_field /nix/store/{bad} mode 0")


def good(place: ThrowawayStore) -> set[str]:
    return {name for name in names(place) if name[33:] in GOOD}


def look(place: ThrowawayStore, bad: str) -> list[object]:
    with pytest.raises(OSError, match="cleaning"):
        os.lstat(place.path(bad))
    swept = sweep(place.as_store())
    with observe(place.as_store()) as observed:
        seen = glance(observed, {bad: ()})
    covering = found(swept)[output_lock(place.invent("bad.drv"), "out")]
    return [
        bad in found(swept),
        good(place) <= found(swept).keys(),
        [note for note in swept.notes if bad in note and "cannot be looked at" in note] != [],
        bad in seen.gone,
        covering.judgement.verdict.value,
    ]


def test_a_sweep_tells_of_it_and_finds_the_rest(tmp_path: Path) -> None:
    assert of_a_changed_disk(tmp_path, strand, spoil, look) == [False, True, True, False, "keep"]


def remove_all(place: ThrowawayStore, bad: str) -> list[list[str]]:
    device, wanted = os.stat(place.store_dir.path).st_dev, good(place)
    asked = [RemoveRequest(bad, EntryKind.OUTPUT, FileId(device, 12))]
    asked += [request(place, name) for name in sorted(wanted)]
    asked += [request(place, f"{bad}.lock")]
    outcomes = run_requests(place, asked)
    assert audit_is_whole(place)
    assert not good(place)
    assert f"{bad}.lock" in names(place)
    return [[outcome.base_name, outcome.status.value] for outcome in outcomes]


def test_the_engine_fails_at_it_and_removes_the_rest(tmp_path: Path) -> None:
    told = of_a_changed_disk(tmp_path, strand, spoil, remove_all)
    statuses: dict[bool, list[str]] = {True: [], False: []}
    for name, status in told:
        statuses[name[33:] in GOOD].append(status)
    assert sorted(statuses[True]) == ["removed", "removed", "taken", "taken"]
    assert statuses[False] == ["failed", "kept"], "what it covers may still be there"


def scan_and_remove(place: ThrowawayStore, bad: str) -> list[object]:
    os.mkdir(f"{place.state_dir}/desk")
    desk = open_desk(place, Path(f"{place.state_dir}/desk"))
    done = run_command(desk.scan("--yes", "--json"))
    removed = [outcome["status"] for outcome in report(done)["outcomes"]]
    locks = run_command(desk.scan("--dry-run", "--kind", "lock"))
    return [done.returncode, removed.count("removed") >= 2, bad in done.stderr, locks.returncode]


def test_scan_says_so_and_removes_the_rest(tmp_path: Path) -> None:
    told = of_a_changed_disk(tmp_path, strand, spoil, scan_and_remove)
    assert told == [0, True, True, 0]
