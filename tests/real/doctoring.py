# SPDX-License-Identifier: MIT
"""`storewarden doctor`, run in a rig, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any

from json_documents import checked
from real import namespace as ns
from real.rig import Rig
from real.watching import configure


@dataclass(frozen=True, slots=True)
class Visit:
    """What it has found, by name, and how it ended."""

    code: int
    found: dict[str, dict[str, Any]]

    def severity(self, name: str) -> str:
        return str(self.found[name]["severity"])

    def said(self, name: str) -> str:
        one = self.found[name]
        steps = " ".join(f"{step['words']} {step['command']}" for step in one["steps"])
        return f"{one['title']} {one['why']} {steps}"

    def of(self, severity: str) -> set[str]:
        """The names of all that is as bad as that."""
        return {name for name, one in self.found.items() if one["severity"] == severity}


def visited(rig: Rig, *lines: str, user: str = "root", through: Sequence[str] = ()) -> Visit:
    """Its diagnoses with those lines of configuration; `through` is a command that runs it."""
    words = [*through, rig.python, "-m", "storewarden", "doctor"]
    words += ["--json", "--config", configure(rig, *lines)]
    return visit_of(ns.run(rig.namespace, words, user=user))


def visit_of(done: CompletedProcess[str]) -> Visit:
    """What a run with `--json` has found."""
    assert done.stderr == ""
    document = checked(done.stdout, "doctor", "--json")
    assert document["version"] == 1
    return Visit(done.returncode, {one["name"]: one for one in document["diagnoses"]})
