# SPDX-License-Identifier: MIT
"""What a check works with: the machine that is examined, and what is said of it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar, cast

from storewarden import host
from storewarden.config import Config
from storewarden.errors import StorewardenError
from storewarden.explain.failures import Step as Step  # noqa: PLC0414 - for all checks
from storewarden.store.nix import Nix
from storewarden.store.store import Known

T = TypeVar("T")
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Unknown:
    """It could not be told, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A machine at one moment. Each fact is its value, or `Unknown` with the reason."""

    now: float
    """Unix time."""
    uid: int
    """Who looks."""
    config: Config
    config_problem: str
    """What is wrong with the configuration of the service; empty if nothing is."""
    nix: Nix
    """The Nix that is asked."""
    darwin: bool
    systemd: bool = False
    """Whether systemd manages the services here."""
    declared: str = ""
    """NixOS or nix-darwin, where such a system makes this machine's files; else empty."""
    facts: Mapping[type, object] = field(default_factory=dict)
    """What each check has seen, by its type."""

    def __getitem__(self, kind: type[T]) -> T:
        """What the check that looks at such facts has seen."""
        if kind not in self.facts:
            raise LookupError(f"no check has looked at {kind.__name__} (for tests: tests/well.py)")
        return cast("T", self.facts[kind])

    def having(self, *facts: object) -> "Patient":
        """The same machine with those facts, instead of others of their types."""
        return replace(self, facts={**self.facts, **{type(fact): fact for fact in facts}})


def admit(config: Config, config_problem: str, nix: Nix) -> Patient:
    """This machine, before any check has looked at it."""
    darwin = sys.platform == "darwin"
    return Patient(
        now=time.time(),
        uid=os.geteuid(),
        config=config,
        config_problem=config_problem,
        nix=nix,
        darwin=darwin,
        systemd=not darwin and os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        declared=host.declared_by(),
    )


def attempt(question: Callable[[], T]) -> T | Unknown:
    """Its answer; `Unknown` where the system, the store or Nix refuse it. For what ends itself."""
    try:
        return question()
    except OSError as cause:
        return Unknown(reason(cause))
    except StorewardenError as cause:
        return Unknown(str(cause))


def within(question: Callable[[], T], seconds: float = SECONDS) -> T | Unknown:
    """The same for what may never end, such as a file server that is gone, and is not waited for.

    What does not answer is left behind in a thread that ends with this process.
    """
    answers: list[T | Unknown] = []
    faults: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(attempt(question))
        except Exception as fault:  # noqa: BLE001 - a bug is raised where the question was asked, not here
            faults.append(fault)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    return answers[0] if answers else Unknown(f"there was no answer within {seconds:.0f} s")


def reason(cause: OSError) -> str:
    """What the system said, with the path if it named one."""
    text = (os.strerror(cause.errno) if cause.errno else str(cause)).lower()
    return f"{cause.filename}: {text}" if cause.filename else text


def exists(path: str) -> Known:
    """Whether something is there, be it a link to nothing."""
    return there(lambda: os.lstat(path))


def there(look: Callable[[], object]) -> Known:
    """Whether looking at something succeeds; no where it is not there, unknown where it fails."""

    def ask() -> Known:
        try:
            look()
        except FileNotFoundError:
            return Known.NO
        return Known.YES

    answer = within(ask)
    return Known.UNKNOWN if isinstance(answer, Unknown) else answer


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
    severity: Severity
    title: str
    """What is so, in one sentence without a full stop."""
    why: str = ""
    """What follows from it."""
    steps: tuple[Step, ...] = ()
    issues: tuple[str, ...] = ()
    """Where it is known from, as `owner/repository#number`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What diagnoses are about. Its methods make them."""

    name: str
    """Stable, for programs."""

    def ok(self, title: str) -> Diagnosis:
        """Nothing is wrong there."""
        return Diagnosis(self.name, Severity.OK, title)

    def note(
        self, title: str, why: str = "", *steps: Step, issues: tuple[str, ...] = ()
    ) -> Diagnosis:
        """Worth knowing; nothing has to be done."""
        return Diagnosis(self.name, Severity.NOTE, title, why, steps, issues)

    def unknown(self, title: str, why: str = "", *steps: Step) -> Diagnosis:
        """It cannot be found out from here."""
        return Diagnosis(self.name, Severity.UNKNOWN, title, why, steps)

    def problem(
        self, title: str, why: str, *steps: Step, issues: tuple[str, ...] = ()
    ) -> Diagnosis:
        """Something should be done."""
        return Diagnosis(self.name, Severity.PROBLEM, title, why, steps, issues)
