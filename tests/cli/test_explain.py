# SPDX-License-Identifier: MIT
"""`storewarden explain` and `storewarden locks` as a user runs them."""

import os
import re
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, open_desk, report, run, strand_lock, typed
from explaining import write_nix
from storewarden.readable import ThisStore
from storewarden.store.paths import output_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table, picture


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    opened = open_desk(place, tmp_path / "desk")
    write_nix(os.path.dirname(opened.nix))
    return opened


def words(desk: Desk, command: str, *more: str) -> list[str]:
    """The command on this store."""
    surroundings = ["--store-dir", desk.place.store_dir.path, "--state-dir", desk.place.state_dir]
    return [*PROGRAM, command, *surroundings, "--nix", desk.nix, "--min-age", "0", *more]


def test_each_path_has_a_block_of_its_own_and_nothing_is_changed(desk: Desk) -> None:
    derivation = desk.place.add_derivation("hello")
    paths = [
        desk.place.path(name)
        for name in (desk.place.strand(derivation).base_name, derivation.base_name)
    ]
    before = picture(str(desk.place.store_dir.path))
    done = run(words(desk, "explain", *paths))
    assert picture(str(desk.place.store_dir.path)) == before
    assert done.returncode == 0, done.stderr
    blocks = done.stdout.split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == paths
    long = [line for line in done.stdout.split("\n") if len(line) > 80]
    assert all(desk.place.store_dir.path in line for line in long), "a path alone is never broken"


def test_the_same_as_one_json_object(desk: Desk) -> None:
    derivation = desk.place.add_derivation("hello")
    name = desk.place.strand(derivation).base_name
    document = report(run(words(desk, "explain", "--json", name)))
    assert (document["storeDir"], document["stateDir"]) == (
        desk.place.store_dir.path,
        desk.place.state_dir,
    )
    [told] = document["paths"]
    assert (told["asked"], told["path"]) == (name, desk.place.path(name))
    deriver = desk.place.path(derivation.base_name)
    assert told["outputOf"] == [{"deriver": deriver, "output": "out"}]
    assert told["locks"][0]["path"] == desk.place.path(output_lock(derivation, "out"))
    assert None not in told["would"]


@pytest.mark.parametrize("asked", ["/etc", "hello", "/none/at/all"])
def test_what_is_not_in_the_store_is_wrong_use_before_anything_is_said(
    desk: Desk, asked: str
) -> None:
    good = desk.place.add_valid("good").base_name
    done = run(words(desk, "explain", good, asked))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"storewarden: error: {asked!r} is not")
    assert done.stderr.count("\n") == 1


def test_where_nix_does_not_answer_the_rest_is_told_and_the_status_is_3(desk: Desk) -> None:
    os.unlink(desk.nix)
    name = desk.place.strand(desk.place.add_derivation("hello")).base_name
    done = run(words(desk, "explain", name))
    assert done.returncode == 3
    assert "there; whether it is valid is not known" in done.stdout
    assert "Nix could not be asked" in done.stderr


def test_without_a_database_the_status_is_3(desk: Desk) -> None:
    os.unlink(f"{desk.place.state_dir}/db/db.sqlite")
    done = run(words(desk, "explain", desk.place.invent("x").base_name))
    assert done.returncode == 3
    assert "there is no Nix database" in done.stderr


def test_from_a_directory_that_is_gone_a_relative_path_is_wrong_use(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = run(["sh", "-c", script, "sh", f"{tmp_path}/gone", *words(desk, "explain", "./x")])
    assert (done.returncode, done.stdout) == (2, "")
    assert "the working directory is gone" in done.stderr


def test_advice_about_another_store_is_for_that_store(desk: Desk) -> None:
    name = strand_lock(desk.place, "hello")
    this = ThisStore(desk.place.store_dir.path, desk.place.state_dir)
    [told] = report(run(words(desk, "explain", "--json", name)))["paths"]
    advised = [one["command"] for one in told["advice"]]
    assert advised == [typed(this.command("sudo storewarden scan --yes"))]


@pytest.mark.skipif(ROOT, reason="root sees all there is")
def test_names_that_a_builder_chose_are_quoted_in_a_command_to_copy_or_not_told(desk: Desk) -> None:
    this = ThisStore(desk.place.store_dir.path, desk.place.state_dir)
    for name in ("x; touch y", "x\n; touch y"):
        desk.place.add_file(name)
    path = desk.place.path("x; touch y")
    done = run(words(desk, "explain", path))
    assert typed(this.command(f"sudo storewarden explain '{path}'")) in " ".join(
        done.stderr.split()
    )
    done = run(words(desk, "explain", desk.place.path("x\n; touch y")))
    assert "touch" not in done.stderr
    assert "ls -lad" not in done.stdout


@pytest.mark.skipif(ROOT, reason="root sees all there is")
def test_an_ordinary_user_is_told_that_root_sees_more(desk: Desk) -> None:
    path = desk.place.path(desk.place.add_valid("x").base_name)
    done = run(words(desk, "explain", path))
    this = ThisStore(desk.place.store_dir.path, desk.place.state_dir)
    assert typed(this.command(f"sudo storewarden explain {path}")) in " ".join(done.stderr.split())


@needs_lock_table
def test_locks_are_listed_with_their_holders_and_counted(desk: Desk) -> None:
    derivation, other = desk.place.add_derivation("held"), desk.place.add_derivation("stale")
    for one in (derivation, other):
        desk.place.strand(one)
    lock = desk.place.path(output_lock(derivation, "out"))
    with holding(lock) as pid:
        done = run(words(desk, "locks"))
        document = report(run(words(desk, "locks", "--json")))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == f"held    {output_lock(derivation, 'out')}"
    assert f"by process {pid} (" in " ".join(done.stdout.split())
    assert lines[-2] == "2 lock files: 1 held, 1 stale"
    assert all(len(line) <= 80 for line in lines)
    assert [one["held"] for one in document["locks"]] == ["yes", "no"]
    assert document["locks"][0]["holders"][0]["pid"] == pid


def test_all_locks_are_listed_where_that_is_asked_for(desk: Desk) -> None:
    with open(f"{desk.place.state_dir}/gc.lock", "w", encoding="ascii"):
        pass
    assert run(words(desk, "locks")).stdout == "no lock files\n"
    assert f"{desk.place.state_dir}/gc.lock" in run(words(desk, "locks", "--all")).stdout


def test_of_what_was_removed_it_is_told_when_for_whom_and_on_what_proof(desk: Desk) -> None:
    lock = strand_lock(desk.place, "gone")
    assert run(desk.scan("--yes")).returncode == 0
    asked = words(desk, "explain", "--config", os.devnull, "--audit-log", desk.audit_log)
    done = run([*asked, desk.place.path(lock)])
    told = " ".join(done.stdout.split())
    assert re.search(r"history removed on 20[^;]* \(\d+ s ago\), asked by [^;]*, by hand;", told)
    assert "nothing claimed it (valid-to-nix, " in told
    (story,) = report(run([*asked, "--json", lock]))["paths"]
    assert [(one["status"], one["path"]) for one in story["removals"]] == [
        ("removed", desk.place.path(lock))
    ]
    os.mkdir(f"{desk.directory}/closed.jsonl")  # no log can be read there
    unread = words(desk, "explain", "--config", os.devnull)
    hidden = run([*unread, "--audit-log", f"{desk.directory}/closed.jsonl", lock])
    command = typed("sudo storewarden audit log")
    assert f"whether it was removed here, root can tell: {command}" in hidden.stderr
