# SPDX-License-Identifier: MIT
"""What is advised about registered paths: what keeps them, and how they are made whole."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from explaining import story_of, write_nix
from storewarden.claims import Claim, Verdict
from storewarden.explain.advice import Advice, advice
from storewarden.explain.entry import Story, Use, Uses
from storewarden.processes import Running
from storewarden.readable import ThisStore, repair_path
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore


def told(place: ThrowawayStore, tmp_path: Path, root: str) -> tuple[Advice, ...]:
    """What is advised about a path that this root keeps."""
    path = place.path(place.add_valid("hello").base_name)
    return advice(story_of(place, write_nix(f"{tmp_path}/bin", [f"{root} -> {path}"]), path))


def missing(place: ThrowawayStore, nix: str, path: StorePath, **columns: str) -> Story:
    """The story of a path that is registered so, and gone."""
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as database, database:
        for column, value in columns.items():
            database.execute(
                f"UPDATE ValidPaths SET {column} = ? WHERE path = ?",  # noqa: S608 - ours
                (value, place.path(path.base_name)),
            )
    os.unlink(place.path(path.base_name))
    return story_of(place, nix, path.base_name)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("/run/current-system", "it belongs to the running system: that changes by a switch"),
        ("/run/booted-system", "it belongs to the booted system: that changes by a reboot"),
        ("/nix/var/nix/gcroots/current-system", "it belongs to the running system: that changes"),
        ("/nix/var/nix/gcroots/booted-system", "it belongs to the booted system: that changes"),
        ("/proc/sys/kernel/modprobe", "the kernel's settings name it: it is free when /proc/sys"),
        ("/proc/77/exe", "process 77 uses it"),
    ],
)
def test_what_the_machine_runs_on_is_never_told_to_be_removed(
    place: ThrowawayStore, tmp_path: Path, root: str, said: str
) -> None:
    advised = told(place, tmp_path, root)
    assert advised[0].purpose.startswith(said)
    assert not any(one.command.startswith("rm ") for one in advised)


def test_another_root_is_told_with_a_command_that_a_shell_reads_as_it_is_meant(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    assert Advice("to drop that root", "rm '/home/me/a b'") in told(place, tmp_path, "/home/me/a b")


def test_a_root_whose_name_is_not_plain_is_told_without_a_command(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    [one] = [one for one in told(place, tmp_path, "/home/josé/x") if "drop" in one.purpose]
    assert (one.purpose.split(" (")[0], one.command) == ("to drop that root", "")


def test_what_is_missing_is_not_told_to_be_forgotten_first(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.add_valid("hello")
    story = missing(place, write_nix(f"{tmp_path}/bin"), path)
    assert [one.command for one in advice(story)] == [repair_path(story.path)]


def test_a_missing_content_addressed_output_is_told_to_be_built_anew(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path, drv = place.add_valid("hello"), place.path(place.add_derivation("hello").base_name)
    nix = write_nix(f"{tmp_path}/bin")
    story = missing(place, nix, path, ca="fixed:r:sha256:x", deriver=drv)
    repair, anew = (one.command for one in advice(story))
    assert repair == repair_path(story.path)
    assert anew == f"nix-store --delete {story.path} && nix-store --realise {drv}"
    this = ThisStore(place.store_dir.path, place.state_dir)
    assert [one.command for one in advice(story, this)] == [this.command(c) for c in (repair, anew)]


def test_a_missing_source_is_told_to_be_added_again_and_a_derivation_to_be_instantiated(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    nix = write_nix(f"{tmp_path}/bin")
    story = missing(place, nix, place.add_valid("source"), ca="fixed:r:sha256:x")
    assert [one.command for one in advice(story)] == [f"nix-store --delete {story.path}"]
    story = missing(place, nix, place.add_derivation("hello"), ca="text:sha256:x")
    assert [one.command for one in advice(story)] == ["sudo nix-store --verify"]
    assert "with all else that is not there" in advice(story)[0].purpose


def test_an_output_of_a_renumbered_build_user_is_told_with_what_removes_it(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.strand(place.add_derivation("hello"))
    story = story_of(place, write_nix(f"{tmp_path}/bin"), path.base_name)
    assert story.finding is not None
    finding = replace(story.finding, kind=EntryKind.FOREIGN, of_stranger=True)
    foreign = replace(story, owner_name=None, finding=finding)
    [one] = advice(foreign)
    assert one.purpose.endswith("if nothing builds it (the owner's number is free)")
    assert one.command == f"nix-store --delete {story.path}"
    [one] = advice(replace(foreign, owner_name="_aonsensed"))
    assert "the owner's number is now _aonsensed's" in one.purpose
    [one] = advice(replace(foreign, finding=replace(finding, of_stranger=False)))
    assert one.command == f"ls -lad {story.path}"


def test_of_an_orphan_and_its_short_lived_child_only_the_older_is_told_to_be_ended(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.strand(place.add_derivation("hello"))
    story = story_of(place, write_nix(f"{tmp_path}/bin"), path.base_name)
    assert story.finding is not None
    kept = replace(story.finding.judgement, verdict=Verdict.KEEP, claims=(Claim.ORPHAN,))
    child, parent = Running(10, "sleep 1", "nixbld1", 200.0), Running(9, "sh", "nixbld1", 100.0)
    uses = Uses(tuple(Use(one, ("works in it",)) for one in (child, parent)), 0)
    story = replace(
        story, uses=uses, user_lock=None, finding=replace(story.finding, judgement=kept)
    )
    assert [one.command for one in advice(story) if "kill" in one.command] == ["sudo kill 9"]
