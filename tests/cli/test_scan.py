# SPDX-License-Identifier: MIT
"""The command line as it is used: what is shown, what is removed, and with what it ends."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, Desk, report, run, strand_lock, typed
from programs import program
from stand_in import write_answering_nix, write_program
from storewarden.readable import REMOVE, ThisStore
from storewarden.store.paths import output_lock
from sweeps import SEES_LOCKS, holding, needs_lock_table


def test_nothing_found_is_told_and_fine(desk: Desk) -> None:
    done = run(desk.scan("--yes", "--exit-code"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"nothing unregistered found in {desk.place.store_dir.path}\n"


@pytest.mark.parametrize("words", [(), ("--dry-run",), ("--dry-run", "--yes"), ("-y", "-n")])
def test_without_yes_or_with_dry_run_it_only_shows(desk: Desk, words: tuple[str, ...]) -> None:
    lock = strand_lock(desk.place, "hello")
    before = desk.names()
    done = run(desk.scan(*words))
    assert done.returncode == 0
    assert desk.place.path(lock) in done.stdout
    assert ("1 can go" if SEES_LOCKS else "1 looks dead") in done.stdout
    assert "storewarden scan --yes" in done.stderr
    assert (desk.names(), os.path.exists(desk.audit_log)) == (before, False)


def test_yes_removes_what_is_dead_and_records_it(desk: Desk) -> None:
    valid = desk.names()
    derivation = desk.place.add_derivation("hello-2.12")
    output = desk.place.strand(derivation)
    lock = output_lock(derivation, "out")
    if not ROOT:  # it takes two users to strand an output; a lock file is the store owner's
        desk.place.register(output)
    done = run(desk.scan("--yes"))
    assert done.returncode == 0, done.stderr
    gone = {lock, output.base_name} if ROOT else {lock}
    assert desk.names() == valid | {derivation.base_name} | ({output.base_name} - gone)
    assert done.stdout.splitlines()[-1].startswith(f"{len(gone)} removed (")
    shown = run([*PROGRAM, "audit", "show", "--audit-log", desk.audit_log])
    assert shown.returncode == 0
    assert shown.stdout.count("intent ") == shown.stdout.count("result ") == len(gone)
    verified = run([*PROGRAM, "audit", "verify", "--audit-log", desk.audit_log])
    assert (verified.returncode, f"{2 * len(gone)} records" in verified.stdout) == (0, True)
    assert run(desk.scan("--exit-code")).returncode == 0


def test_json_is_one_object_with_outcomes_only_where_removal_was_asked_for(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    looked = run(desk.scan("--json"))
    assert (looked.returncode, "outcomes" in report(looked)) == (0, False)
    (found,) = report(looked)["findings"]
    assert (found["path"], found["kind"]) == (desk.place.path(lock), "lock")
    done = report(run(desk.scan("--json", "--yes")))
    assert done["outcomes"] == [
        {
            "path": desk.place.path(lock),
            "kind": "lock",
            "status": "removed",
            "reasons": [],
            "files": 1,
            "directories": 0,
            "bytes": 0,
        }
    ]
    assert report(run(desk.scan("--json")))["findings"] == []


@needs_lock_table
def test_the_recipes_for_jq_give_what_they_say(desk: Desk) -> None:
    live = strand_lock(desk.place, "live")
    desk.place.add_file(".DS_Store")
    dead = desk.place.path(strand_lock(desk.place, "dead"))
    page = Path(__file__).parents[2].joinpath("docs/json.md").read_text(encoding="utf-8")
    recipes = re.findall(r"^storewarden scan --json \| (jq .*)$", page, re.MULTILINE)
    with holding(desk.place.path(live)) as pid:
        document = run(desk.scan("--json")).stdout
        told = [run_jq(shlex.split(recipe)[1:], document) for recipe in recipes]
    assert json.loads(told[0])["kept"] == 1
    assert told[1].splitlines() == [dead]
    paths = {line.partition(": ")[0] for line in told[2].splitlines()}
    assert paths == {desk.place.path(name) for name in (live, ".DS_Store")}
    assert f"process {pid}" in told[2]


def run_jq(words: list[str], document: str) -> str:
    """What jq prints of that document."""
    done = subprocess.run(
        [program("jq", "jq"), *words], input=document, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_many_are_removed_batch_after_batch(desk: Desk) -> None:
    locks = {strand_lock(desk.place, f"many-{number}") for number in range(40)}
    done = run(desk.scan("--yes"))
    assert (done.returncode, done.stdout.count("removed: ")) == (0, 0)
    assert done.stdout.endswith("\n... 30 more: --all\n40 removed (0 B freed)\n")
    assert not locks & desk.names()


def test_who_wants_to_hear_of_each_removal_does_and_who_wants_quiet_has_it(desk: Desk) -> None:
    locks = [strand_lock(desk.place, f"many-{number}") for number in range(12)]
    for lock in locks:
        assert desk.place.path(lock) in run(desk.scan("--dry-run", "--all")).stdout
    looked = run(desk.scan("--dry-run", "--quiet"))
    assert (looked.stdout.count("/"), looked.stderr) == (desk.place.store_dir.path.count("/"), "")
    done = run(desk.scan("--yes", "--verbose", "--quiet"))
    assert (done.stdout.count("\nremoved: "), done.stderr) == (12, "")


def test_findings_can_decide_the_exit_code(desk: Desk) -> None:
    desk.place.add_file(".DS_Store")
    assert run(desk.scan()).returncode == 0
    assert run(desk.scan("--exit-code")).returncode == 1
    assert run(desk.scan("--exit-code", "--json", "--yes")).returncode == 1
    assert run(desk.scan("--exit-code", "--kind", "lock")).returncode == 0


@needs_lock_table
def test_a_held_lock_is_kept_and_that_is_fine(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    with holding(desk.place.path(lock)) as pid:
        done = run(desk.scan("--yes"))
    assert done.returncode == 0
    assert f"process {pid}" in done.stdout
    assert lock in desk.names()


def test_what_nix_knows_as_valid_stays(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    write_answering_nix(desk.nix, [desk.place.path(lock)])
    done = run(desk.scan("--yes", "--exit-code"))
    assert (done.returncode, lock in desk.names()) == (0, True)


def test_only_the_kind_that_was_asked_for_is_removed(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    assert run(desk.scan("--yes", "--kind", "output")).returncode == 0
    assert lock in desk.names()


def test_what_it_says_to_type_names_the_store_and_the_kinds_that_were_asked_for(desk: Desk) -> None:
    strand_lock(desk.place, "hello")
    this = ThisStore(desk.place.store_dir.path, desk.place.state_dir)
    options = f"--config /dev/null --min-age 0s --nix {desk.nix} --audit-log {desk.audit_log}"
    for words in ([], ["--kind", "output", "--kind", "lock"]):
        done = run(desk.scan("--dry-run", *words))
        command = typed(this.command(" ".join([REMOVE, *words, options])))
        assert done.stderr.endswith(f"storewarden: to remove what can go: {command}\n")


def test_what_is_too_young_stays(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    done = run(desk.scan("--yes", "--min-age", "1h"))
    assert (done.returncode, lock in desk.names()) == (0, True)
    assert "too recently" in done.stdout


@pytest.mark.parametrize("nix", ["echo no daemon >&2; exit 1\n", "echo '{}'\n", "echo rubbish\n"])
def test_where_nix_does_not_answer_it_ends_with_3_and_nothing_is_removed(
    desk: Desk, nix: str
) -> None:
    lock = strand_lock(desk.place, "hello")
    write_program(desk.nix, nix)
    done = run(desk.scan("--yes", "--json"))
    assert (done.returncode, lock in desk.names()) == (3, True)
    assert done.stderr.count("storewarden: error: Nix could not be asked") == 1
    assert ("storewarden: root may be answered by Nix: sudo " in done.stderr) is not ROOT
    assert [found["verdict"] for found in report(done)["findings"]] == ["keep"]


@pytest.mark.skipif(not ROOT, reason="only root has another user's store")
def test_a_store_of_another_user_needs_the_helper(desk: Desk) -> None:
    lock = strand_lock(desk.place, "hello")
    os.chown(desk.place.store_dir.path, 4321, 4321)
    os.chown(desk.place.path(lock), 4321, 4321)
    done = run(desk.scan("--yes"))
    assert (done.returncode, lock in desk.names()) == (4, True)
    assert "helper.sock cannot be reached" in done.stderr


def test_names_that_a_builder_chose_cannot_write_to_the_terminal(desk: Desk) -> None:
    for name in ("a\x1b]0;owned\x07\x1b[2J", "b\nnothing unregistered found", "c\u202e\u200b"):
        desk.place.add_file(name)
    done = run(desk.scan("--yes"), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()
    assert "\nnothing unregistered" not in done.stdout
    paths = [found["path"] for found in report(run(desk.scan("--json")))["findings"]]
    assert desk.place.path("b\nnothing unregistered found") in paths
