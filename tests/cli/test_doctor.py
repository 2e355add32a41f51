# SPDX-License-Identifier: MIT
"""`storewarden doctor` as a command: its exit codes, its streams, its text and its JSON."""

import json
from dataclasses import replace

from command import PROGRAM, Desk, report, run
from stand_in import write_program
from storewarden.cli.doctor import doctor_json, doctor_lines
from storewarden.doctor import diagnose
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Severity, Step, Unknown
from storewarden.doctor.store import Database, Storage
from well import WELL, but

NIX = """
case "$*" in
*--version*) echo 'nix (Nix) 2.35.2' ;;
*config\\ show*) echo '{"sandbox": {"value": true}, "sandbox-fallback": {"value": false},
    "experimental-features": {"value": []}, "build-users-group": {"value": "root"}}' ;;
*) exit 1 ;;
esac
"""


def doctor(desk: Desk, *words: str) -> list[str]:
    """The command, with a configuration that keeps it off this machine's own store."""
    file = desk.directory / "config.toml"
    file.write_text(
        f'store-dir = "{desk.place.store_dir.path}"\n'
        f'state-dir = "{desk.place.state_dir}"\n'
        f'nix = "{desk.nix}"\n'
        f'audit-log = "{desk.audit_log}"\n'
        f'socket = "{desk.directory}/helper.sock"\n'
        f'runtime-dir = "{desk.directory}/watch"\n'
        'build-group = "root"\n'
    )
    return [*PROGRAM, "doctor", "--config", str(file), *words]


def test_what_is_told_goes_to_stdout_and_the_exit_code_says_whether_it_is_bad(desk: Desk) -> None:
    write_program(desk.nix, NIX)
    done = run(doctor(desk))
    assert done.stderr == ""
    assert "ok          Nix 2.35.2" in done.stdout
    assert done.returncode == (5 if "PROBLEM" in done.stdout else 0)


def test_as_json_it_is_one_object_with_the_same_exit_code(desk: Desk) -> None:
    write_program(desk.nix, NIX)
    done = run(doctor(desk, "--json"))
    document = report(done)
    assert document["storeDir"] == desk.place.store_dir.path
    bad = any(one["severity"] == "problem" for one in document["diagnoses"])
    assert done.returncode == (5 if bad else 0)


def test_without_a_nix_it_ends_with_3_and_tells_what_it_can(desk: Desk) -> None:
    write_program(desk.nix, "exit 1\n")
    done = run(doctor(desk, "--json"))
    assert done.returncode == 3
    found = {one["name"]: one["severity"] for one in report(done)["diagnoses"]}
    assert (found["nix"], found["database"]) == ("problem", "ok")


def test_without_a_store_it_ends_with_3(desk: Desk) -> None:
    write_program(desk.nix, NIX)
    words = doctor(desk)
    file = desk.directory / "config.toml"
    text = file.read_text().replace(f'"{desk.place.store_dir.path}"', '"/no/such/store"')
    file.write_text(text)
    done = run(words)
    assert done.returncode == 3
    assert "The store directory /no/such/store is not there" in done.stdout


def test_a_configuration_that_was_named_and_is_wrong_is_wrong_use(desk: Desk) -> None:
    words = doctor(desk)
    (desk.directory / "config.toml").write_text("nonsense = 1\n")
    done = run(words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown key 'nonsense'" in done.stderr


FOUND = (
    Diagnosis(
        "one",
        Severity.PROBLEM,
        "Something is wrong",
        "Something else follows.",
        (Step("Do this.", "sudo this"), Step("Or that.")),
        ("NixOS/nix#13703", "NixOS/nix#1"),
    ),
    Diagnosis("two", Severity.NOTE, "Something is so"),
    Diagnosis("three", Severity.OK, "This is well"),
    Diagnosis("four", Severity.OK, "That is well"),
)


def test_each_is_told_with_reason_remedy_and_issues() -> None:
    assert list(doctor_lines(FOUND)) == [
        "PROBLEM     Something is wrong",
        "    why         Something else follows.",
        "    do          Do this.",
        "                  sudo this",
        "                Or that.",
        "    see         https://github.com/NixOS/nix/issues/13703",
        "                https://github.com/NixOS/nix/issues/1",
        "",
        "note        Something is so",
        "",
        "ok          This is well",
        "ok          That is well",
        "",
        "1 problem, 1 note, 2 ok",
    ]


def test_nothing_that_a_machine_says_reaches_the_terminal_as_it_is() -> None:
    broken = Database(broken="it is \x1b[31mred\x07 and \u202ebackwards")
    nix = replace(WELL.nix, program="/\x1b]0;x\x07/nix")
    patient = but(replace(WELL, nix=nix), Storage, database=broken)
    text = "\n".join(doctor_lines(diagnose(patient)))
    assert text.isascii()
    assert "\x1b" not in text
    assert "\x07" not in text


def test_as_json_all_of_it_is_there_and_what_is_unknown_is_null() -> None:
    patient = but(WELL, Installation, daemon_version=Unknown("it does not tell"))
    document = json.loads(doctor_json(patient, FOUND))
    assert document["version"] == 1
    assert document["nix"] == {
        "program": "/usr/bin/nix",
        "version": "Nix 2.35.2",
        "daemonVersion": None,
    }
    first, second, *_ = document["diagnoses"]
    assert first == {
        "name": "one",
        "severity": "problem",
        "title": "Something is wrong",
        "why": "Something else follows.",
        "steps": [
            {"words": "Do this.", "command": "sudo this"},
            {"words": "Or that.", "command": None},
        ],
        "issues": [
            "https://github.com/NixOS/nix/issues/13703",
            "https://github.com/NixOS/nix/issues/1",
        ],
    }
    assert (second["why"], second["steps"], second["issues"]) == (None, [], [])
