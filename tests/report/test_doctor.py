# SPDX-License-Identifier: MIT
"""Diagnoses as people and programs read them."""

import json
from dataclasses import replace

from storewarden.doctor.diagnosing import diagnose
from storewarden.doctor.diagnosis import Diagnosis, Severity, Step
from storewarden.doctor.facts import Database, Unknown
from storewarden.report.doctor import doctor_json, doctor_lines
from well import WELL

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
    facts = replace(WELL, database=Database(broken="it is \x1b[31mred\x07 and \u202ebackwards"))
    facts = replace(facts, nix=replace(facts.nix, program="/\x1b]0;x\x07/nix"))
    text = "\n".join(doctor_lines(diagnose(facts)))
    assert text.isascii()
    assert "\x1b" not in text
    assert "\x07" not in text


def test_as_json_all_of_it_is_there_and_what_is_unknown_is_null() -> None:
    facts = replace(WELL, nix=replace(WELL.nix, daemon_version=Unknown("it does not tell")))
    document = json.loads(doctor_json(facts, FOUND))
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
