# SPDX-License-Identifier: MIT
"""Wrong use and broken worlds: one clear line on stderr, the right exit code, nothing removed."""

import os
from pathlib import Path

import pytest

from command import PROGRAM, Desk, open_desk, report, run, strand_lock
from storewarden.throwaway import ThrowawayStore


@pytest.fixture
def desk(place: ThrowawayStore, tmp_path: Path) -> Desk:
    """A store with a lock file that could be removed, and a stand-in for Nix."""
    strand_lock(place, "hello")
    return open_desk(place, tmp_path)


def assert_refused(desk: Desk, code: int, *words: str, says: str = "") -> None:
    """It ends so, with one line that says it, and leaves the store alone."""
    before = desk.names()
    done = run(desk.scan("--yes", *words))
    assert (done.returncode, done.stdout, desk.names()) == (code, "", before)
    (line,) = done.stderr.splitlines()
    assert line.startswith("storewarden: error: ")
    assert says in line


@pytest.mark.parametrize(
    "words",
    [
        ("--dry",),
        ("--ye",),
        ("--frobnicate",),
        ("--min-age", "5x"),
        ("--min-age=-1",),
        ("--kind", "valid"),
        ("--store-dir", "nix/store"),
        ("--store-dir", "/nix/store/"),
        ("--state-dir", "var"),
        ("extra",),
    ],
)
def test_wrong_use_ends_with_2(desk: Desk, words: tuple[str, ...]) -> None:
    assert_refused(desk, 2, *words, says="--help")


def test_an_unknown_command_ends_with_2() -> None:
    for words in (["scam"], ["audit", "sho"], ["help", "scam"], ["completion", "csh"]):
        done = run([*PROGRAM, *words])
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_store_that_is_not_there_ends_with_3(desk: Desk, tmp_path: Path) -> None:
    assert_refused(desk, 3, "--store-dir", f"{tmp_path}/absent", says="no store directory")
    (tmp_path / "link").symlink_to(desk.place.store_dir.path)
    assert_refused(desk, 3, "--store-dir", f"{tmp_path}/link", says="cannot open")


def test_a_state_directory_of_something_else_ends_with_3(desk: Desk, tmp_path: Path) -> None:
    assert_refused(desk, 3, "--state-dir", f"{tmp_path}/absent", says="is --state-dir right")
    other = ThrowawayStore.create(f"{tmp_path}/another-place-for-a-store")
    desk.place.add_file(desk.place.invent("stranger").base_name)
    assert_refused(desk, 3, "--state-dir", other.state_dir, says="no valid path at all")


def test_another_schema_ends_with_3(desk: Desk) -> None:
    with open(f"{desk.place.state_dir}/db/schema", "w", encoding="ascii") as file:
        file.write("11")
    assert_refused(desk, 3, says="only 10 is understood")


def test_a_broken_database_ends_with_3(desk: Desk) -> None:
    for name in os.listdir(f"{desk.place.state_dir}/db"):
        if name.startswith("db.sqlite"):
            with open(f"{desk.place.state_dir}/db/{name}", "wb") as file:
                file.write(b"rubbish" * 1000)
    assert_refused(desk, 3, says="cannot be read")


def test_a_nix_that_is_not_there_ends_with_3(desk: Desk, tmp_path: Path) -> None:
    before = desk.names()
    done = run(desk.scan("--yes", "--nix", f"{tmp_path}/absent/nix"))
    assert (done.returncode, desk.names()) == (3, before)
    assert done.stderr.splitlines()[-1].startswith("storewarden: error: Nix could not be asked")


@pytest.mark.parametrize("log", ["a directory", "a link", "below a file"])
def test_an_audit_log_that_cannot_be_written_ends_with_4(
    desk: Desk, tmp_path: Path, log: str
) -> None:
    (tmp_path / "a directory").mkdir()
    (tmp_path / "a link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "log" if log == "below a file" else tmp_path / log
    before = desk.names()
    done = run(desk.scan("--yes", "--audit-log", str(path)))
    assert (done.returncode, desk.names()) == (4, before)
    assert done.stderr.splitlines()[-1].startswith("storewarden: error: cannot open the audit log")


def test_an_audit_log_that_is_not_there_cannot_be_verified(desk: Desk) -> None:
    done = run([*PROGRAM, "audit", "verify", "--json", "--audit-log", desk.audit_log])
    assert (done.returncode, done.stdout) == (4, "")
    assert "nothing was recorded there yet" in done.stderr


def test_where_nothing_was_recorded_yet_there_is_nothing_to_show_and_that_is_well(
    desk: Desk,
) -> None:
    done = run([*PROGRAM, "audit", "show", "--json", "--audit-log", desk.audit_log])
    assert (done.returncode, report(done)["records"]) == (0, [])
    assert "nothing was recorded there yet" in done.stderr


def test_a_damaged_audit_log_ends_with_1(desk: Desk) -> None:
    assert run(desk.scan("--yes")).returncode == 0
    verify = [*PROGRAM, "audit", "verify", "--json", "--audit-log", desk.audit_log]
    sound = report(run(verify))
    assert (sound["sound"], sound["records"], sound["problem"]) == (True, 2, "")
    show = [*PROGRAM, "audit", "show", "--json", "--audit-log", desk.audit_log]
    records = report(run(show))["records"]
    assert [record["action"] for record in records] == ["intent", "result"]
    assert records[-1]["hash"] == sound["head"]
    with open(desk.audit_log, "rb+") as file:
        file.seek(40)
        file.write(b"~")
    done = run(verify)
    assert (done.returncode, report(done)["sound"]) == (1, False)
    plain = run(verify[:-3] + verify[-2:])
    assert (plain.returncode, plain.stdout.startswith("DAMAGED: ")) == (1, True)


def test_the_version_is_told() -> None:
    done = run([*PROGRAM, "--version"])
    assert (done.returncode, done.stdout.startswith("storewarden 0.")) == (0, True)
