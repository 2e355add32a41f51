# SPDX-License-Identifier: MIT
"""What a diagnosis is: something that is so, why it matters, what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

from storewarden.explain.failures import Step


class Severity(StrEnum):
    """How much it matters, worst first."""

    PROBLEM = "problem"
    UNKNOWN = "unknown"
    NOTE = "note"
    OK = "ok"


AS_ROOT = Step("Root may.", "sudo storewarden doctor")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing about this machine."""

    name: str
    """Stable, for programs."""
    severity: Severity
    title: str
    """What is so, in one sentence without a full stop."""
    why: str = ""
    """What follows from it."""
    steps: tuple[Step, ...] = ()
    issues: tuple[str, ...] = ()
    """Where it is known from, as `owner/repository#number`."""


def ok(name: str, title: str) -> Diagnosis:
    """Nothing is wrong there."""
    return Diagnosis(name, Severity.OK, title)


def note(name: str, title: str, why: str, *steps: Step, issues: tuple[str, ...] = ()) -> Diagnosis:
    """Worth to know; nothing has to be done."""
    return Diagnosis(name, Severity.NOTE, title, why, steps, issues)


def unknown(name: str, title: str, why: str, *steps: Step) -> Diagnosis:
    """It could not be told from here."""
    return Diagnosis(name, Severity.UNKNOWN, title, why, steps)


def problem(
    name: str, title: str, why: str, *steps: Step, issues: tuple[str, ...] = ()
) -> Diagnosis:
    """Something should be done."""
    return Diagnosis(name, Severity.PROBLEM, title, why, steps, issues)


__all__ = ["AS_ROOT", "Diagnosis", "Severity", "Step", "note", "ok", "problem", "unknown"]
