# SPDX-License-Identifier: MIT
"""What is learned of the entries of a throwaway store, by the same rule as in a scan."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from explaining import story_of, write_nix
from storewarden.claims import Verdict
from storewarden.cli.explain_paths import story_lines, would
from storewarden.explain.advice import Advice, advice
from storewarden.explain.entry import (
    Answer,
    NotInStoreError,
    Output,
    Pointed,
    Story,
    Uses,
    What,
    point,
)
from storewarden.readable import repair_path
from storewarden.store.entries import EntryKind
from storewarden.store.paths import Deriver, output_lock
from storewarden.store.store import Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import BEST, holding, look_at, needs_lock_table, user_lock


@pytest.fixture
def nix(tmp_path: Path) -> str:
    return write_nix(f"{tmp_path}/bin")


def commands(story: Story) -> list[str]:
    """The commands that are told."""
    return [one.command for one in advice(story) if one.command]


def text(story: Story) -> str:
    """The block for people, in one line."""
    return " ".join(" ".join(story_lines(story, advice(story))).split())


def test_debris_has_its_derivation_and_the_verdict_of_a_scan(
    place: ThrowawayStore, nix: str
) -> None:
    derivation = place.add_derivation("hello")
    path = place.strand(derivation)
    for name in (path.base_name, output_lock(derivation, "out")):
        story, scanned = story_of(place, nix, name), look_at(place)[name]
        assert (story.what, story.derivers) == (What.UNREGISTERED, (Deriver(derivation, "out"),))
        assert story.finding is not None
        assert story.finding.judgement == scanned.judgement
        assert story.finding.judgement.verdict is BEST
        assert commands(story) == ["sudo storewarden scan --yes"]
        assert (story.roots, story.referrers, story.registered) == (None, None, None)


@needs_lock_table
def test_debris_whose_lock_is_held_is_kept_and_its_holder_is_told(
    place: ThrowawayStore, nix: str
) -> None:
    derivation = place.add_derivation("hello")
    path = place.strand(derivation)
    with holding(place.path(output_lock(derivation, "out"))) as pid:
        story = story_of(place, nix, path.base_name)
    assert story.finding is not None
    assert story.finding.judgement.verdict is Verdict.KEEP
    [lock] = story.locks
    assert [one.pid for one in lock.holders] == [pid]
    assert commands(story) == [f"sudo kill {pid}"]
    assert "storewarden keep it: its lock is held" in text(story)


@needs_lock_table
def test_a_build_of_something_else_by_its_build_user_is_to_be_waited_for_and_not_ended(
    place: ThrowawayStore, nix: str
) -> None:
    path, covered = place.invent("hello"), place.strand(place.add_derivation("hello"))
    place.add_output(path)
    with holding(f"{place.state_dir}/{user_lock(place)}") as pid:
        story = story_of(place, nix, path.base_name)
        other = story_of(place, nix, covered.base_name)
    # Where its derivation is known, so are its locks, and its user may build what it likes.
    assert commands(other) == ["sudo storewarden scan --yes"]
    assert story.finding is not None
    assert story.finding.judgement.verdict is Verdict.KEEP
    assert story.user_lock is not None
    assert [one.pid for one in story.user_lock.holders] == [pid]
    assert "perhaps of something else: wait for its end" in text(story)
    assert commands(story) == []


def test_an_output_that_is_gone_still_has_a_derivation_that_wants_it(
    place: ThrowawayStore, nix: str
) -> None:
    derivation = place.add_derivation("hello")
    path = place.strand(derivation)
    os.rename(place.path(path.base_name), place.path(place.invent("elsewhere").base_name))
    story = story_of(place, nix, path.base_name)
    assert (story.what, story.entry) == (What.ABSENT, None)
    assert story.derivers == (Deriver(derivation, "out"),)
    assert [lock.held for lock in story.locks] in ([Known.NO], [Known.UNKNOWN])
    assert commands(story) == [f"nix-store --realise {place.path(derivation.base_name)}"]


def test_what_nobody_knows_of_is_absent(place: ThrowawayStore, nix: str) -> None:
    story = story_of(place, nix, place.invent("never").base_name)
    assert (story.what, story.derivers, story.locks) == (What.ABSENT, (), ())
    assert "state not there, and not valid" in text(story)


def test_a_valid_path_has_its_registration_its_roots_and_its_referrers(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.path(place.add_valid("hello").base_name)
    roots = (f"/nix/var/nix/profiles/system-7-link -> {path}", f"{{censored}} -> {path}")
    nix = write_nix(f"{tmp_path}/bin", (*roots, f"/home/me/result -> {path}"), [path, "/nix/other"])
    story = story_of(place, nix, path)
    assert story.what is What.VALID
    assert story.registered is not None
    assert story.registered.time == 1
    assert story.referrers == Answer(("/nix/other",)), "it refers to itself, which keeps nothing"
    assert list(would(story)) == ["leave it alone: it never touches a valid path"]
    told = commands(story)
    assert "nix-env --profile /nix/var/nix/profiles/system --delete-generations 7" in told
    assert "rm /home/me/result" in told
    assert f"sudo storewarden explain {path}" in told
    assert "valid since 1970-01-01 00:00:01 UTC" in text(story)


def test_what_sudo_has_in_the_environment_of_this_process_is_no_root(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.path(place.add_valid("hello").base_name)
    own = f"/proc/{os.getpid()}/environ -> {path}"
    nix = write_nix(f"{tmp_path}/bin", [own, f"/proc/1/cwd -> {path}"])
    assert story_of(place, nix, path).roots == Answer((f"/proc/1/cwd -> {path}",))


def test_a_valid_path_that_nothing_keeps_can_be_deleted_without_sudo(
    place: ThrowawayStore, nix: str
) -> None:
    path = place.path(place.add_valid("hello").base_name)
    assert commands(story_of(place, nix, path))[0] == f"nix-store --delete {path}"


def test_roots_that_nix_does_not_tell_are_unknown_and_never_none(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    path = place.path(place.add_valid("hello").base_name)
    story = story_of(place, f"{tmp_path}/none/nix", path)
    assert story.roots is not None
    assert "cannot run" in story.roots.problem
    assert "roots unknown: cannot run" in text(story)
    assert f"nix-store --delete {path}" not in commands(story)


def test_a_registered_path_that_is_not_there_is_missing(place: ThrowawayStore, nix: str) -> None:
    path = place.add_valid("hello")
    os.unlink(place.path(path.base_name))
    story = story_of(place, nix, path.base_name)
    assert story.what is What.MISSING
    assert commands(story)[0] == repair_path(place.path(path.base_name))
    assert "NOT THERE, but registered as valid since 1970-01-01 00:00:01 UTC" in text(story)


def test_where_neither_nix_nor_the_database_says_it_is_unknown(
    place: ThrowawayStore, nix: str
) -> None:
    derivation = place.add_derivation("hello")
    path = place.strand(derivation)
    silent = Fact(Known.UNKNOWN, "nix-daemon is away")
    store = replace(place.as_store(), ask_nix=lambda paths: dict.fromkeys(paths, silent))
    story = story_of(store, nix, Pointed("x", path.base_name))
    assert story.what is What.UNKNOWN
    assert "nix-daemon is away" in text(story)
    assert "storewarden remove" not in text(story)
    story = story_of(store, nix, Pointed("x", place.invent("never").base_name))
    assert "not there; whether it is registered is not known" in text(story)


def test_a_derivation_has_its_outputs_and_their_scratch_paths(
    place: ThrowawayStore, nix: str
) -> None:
    derivation = place.invent("two.drv")
    known = place.path(place.invent("two-doc").base_name)
    outputs = f'("doc","{known}","",""),("out","","r:sha256","")'
    fd = os.open(place.path(derivation.base_name), os.O_WRONLY | os.O_CREAT, 0o444)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"Derive([{outputs}],[],[])")
    place.register(derivation)
    scratch = place.strand(derivation)
    place.add_lock(f"{place.invent('two-doc').base_name}.lock")
    story = story_of(place, nix, derivation.base_name)
    assert story.outputs == (
        Output("doc", known, scratch=False, there=False),
        Output("out", place.path(scratch.base_name), scratch=True, there=True),
    )
    assert {lock.path.rpartition("/")[2] for lock in story.locks} == {
        output_lock(derivation, "out"),
        f"{place.invent('two-doc').base_name}.lock",
    }


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("0c0v6zlj1nmz5hkxzbaxg6jd5nr0mrm5-x.drv.chroot", EntryKind.CHROOT, "its lock"),
        ("tmp-77-0", EntryKind.TEMPORARY, "only report it"),
        ("strange name", EntryKind.FOREIGN, "only report it"),
    ],
)
def test_other_entries_have_their_kind(
    place: ThrowawayStore, nix: str, name: str, kind: EntryKind, said: str
) -> None:
    os.mkdir(place.path(name))
    if kind is EntryKind.FOREIGN and os.geteuid() == 0:
        os.chown(place.path(name), 12345, 12345)
    story = story_of(place, nix, place.path(name))
    assert story.finding is not None
    assert story.finding.kind is kind
    assert said in text(story)


def test_a_file_below_links_is_nixs_own_business(place: ThrowawayStore, nix: str) -> None:
    with open(place.path(".links/abc"), "w", encoding="ascii"):
        pass
    story = story_of(place, nix, place.path(".links/abc"))
    assert (story.what, story.finding) == (What.SHARED_FILE, None)
    assert commands(story) == ["nix-store --gc"]


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="there is no /proc here")
def test_a_process_that_builds_there_is_told_with_its_ways(place: ThrowawayStore, nix: str) -> None:
    path = place.path(place.strand(place.add_derivation("hello")).base_name)
    with subprocess.Popen(["sleep", "300"], cwd=path, env={"out": path}) as builder:
        try:
            story = story_of(place, nix, path)
        finally:
            builder.kill()
    [one] = [use.process for use in story.uses.seen]
    assert (one.pid, one.command) == (builder.pid, "sleep 300")
    assert story.uses.seen[0].ways == ("works in it", "has it in its environment (out)")


def test_names_that_a_builder_chose_are_safe_for_a_terminal(
    place: ThrowawayStore, nix: str
) -> None:
    name = "evil\x1b[2J\nname"
    os.mkdir(place.path(name))
    story = story_of(place, nix, place.path(name))
    lines = list(story_lines(story, advice(story)))
    assert all(line.isprintable() and line.isascii() for line in lines)


def test_no_processes_to_be_seen_is_unknown(place: ThrowawayStore, nix: str) -> None:
    story = replace(
        story_of(place, nix, place.add_valid("x").base_name),
        uses=Uses((), None),
        rooted=None,
    )
    assert "processes cannot be seen here" in text(story)
    assert "temp roots cannot be read by this user" in text(story)


def test_the_same_advice_is_given_once(place: ThrowawayStore, tmp_path: Path) -> None:
    path = place.path(place.add_valid("hello").base_name)
    roots = [f"/proc/77/{way} -> {path}" for way in ("cwd", "environ")]
    story = story_of(place, write_nix(f"{tmp_path}/bin", roots), path)
    told = advice(story)
    assert len(told) == len(set(told))
    assert Advice("process 77 uses it: it is free when that ends", "ps -fp 77") in told
    assert point(path, place.store_dir) == story.pointed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's is told from a build user's own file")
def test_a_lock_file_that_is_not_empty_is_told_to_be_in_the_way_with_its_cure(
    place: ThrowawayStore, nix: str
) -> None:
    name = output_lock(place.add_derivation("hello"), "out")
    place.add_lock(name)
    with open(place.path(name), "w", encoding="ascii") as file:
        file.write("d")
    [cure] = advice(story_of(place, nix, name))
    assert "no build gets past it;" in cure.purpose
    assert cure.command == f"nix-store --delete {place.path(name)}"


# What a user types, and the entry that it leads to.


def test_a_full_path_a_base_name_and_what_lies_below_lead_to_the_entry(
    place: ThrowawayStore,
) -> None:
    name = place.invent("hello-2.12").base_name
    full = place.path(name)
    assert point(full, place.store_dir) == Pointed(full, name)
    assert point(name, place.store_dir) == Pointed(name, name)
    below = f"{full}//bin/../bin/hello"
    assert point(below, place.store_dir) == Pointed(below, name, "bin/hello")


@pytest.mark.parametrize("suffix", [".lock", ".drv", ".drv.out.lock", ".drv.chroot", ".check"])
def test_names_beside_a_path_are_entries_also_when_they_are_not_there(
    place: ThrowawayStore, suffix: str
) -> None:
    name = place.invent("x").base_name + suffix
    assert point(name, place.store_dir).base_name == name


def test_a_link_is_followed_until_it_is_in_the_store_and_no_further(
    place: ThrowawayStore, tmp_path: Path
) -> None:
    outer = place.invent("env").base_name
    os.mkdir(place.path(outer))
    os.symlink("/nowhere", f"{place.path(outer)}/bin")
    os.symlink(f"{place.path(outer)}/bin", tmp_path / "second")
    os.symlink("second", tmp_path / "result")
    found = point(f"{tmp_path}/result/hello", place.store_dir)
    assert (found.base_name, found.inside) == (outer, "bin/hello")
    assert found.through == (
        f"{tmp_path}/result -> second",
        f"{tmp_path}/second -> {place.path(outer)}/bin",
    )


def test_a_link_may_be_named_from_where_the_user_stands(
    place: ThrowawayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.invent("valid-1").base_name
    os.symlink(place.path(name), tmp_path / "result")
    os.mkdir(tmp_path / "below")
    monkeypatch.chdir(tmp_path / "below")
    assert point("../result", place.store_dir).base_name == name
    monkeypatch.chdir(tmp_path)
    assert point("result", place.store_dir).base_name == name


def test_a_strange_entry_is_found_by_its_name_if_it_is_there(place: ThrowawayStore) -> None:
    place.add_file("strange")
    assert point("strange", place.store_dir).base_name == "strange"
    assert point(place.path("never"), place.store_dir).base_name == "never"


def test_a_file_below_links_is_an_entry_of_its_own(place: ThrowawayStore) -> None:
    assert point(place.path(".links/abc"), place.store_dir).base_name == ".links/abc"
    assert point(place.path(".links"), place.store_dir).base_name == ".links"


@pytest.mark.parametrize(
    "asked", ["/etc", "/etc/none", "hello", "./none", "", ".", "/", "nixpkgs#x"]
)
def test_what_leads_to_nothing_in_the_store_is_refused_in_one_line(
    place: ThrowawayStore, asked: str
) -> None:
    with pytest.raises(NotInStoreError) as refused:
        point(asked, place.store_dir)
    assert place.store_dir.path in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_store_directory_itself_is_no_entry(place: ThrowawayStore) -> None:
    with pytest.raises(NotInStoreError, match="storewarden scan"):
        point(place.store_dir.path + "/", place.store_dir)


def test_from_a_directory_that_is_gone_only_full_paths_and_base_names_lead_somewhere(
    place: ThrowawayStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(NotInStoreError, match="the working directory is gone"):
            point("./x", place.store_dir)
        name = place.invent("x").base_name
        assert point(place.path(name), place.store_dir).base_name == name
        assert point(name, place.store_dir).base_name == name
    finally:
        os.chdir(tmp_path)  # what undoes `chdir` asks where it is


def test_links_that_lead_in_a_circle_are_refused(place: ThrowawayStore, tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(NotInStoreError):
        point(f"{tmp_path}/a", place.store_dir)
