# SPDX-License-Identifier: MIT
"""Nix itself: does it answer, its version and bugs, are its settings those that count. Pure."""

from collections.abc import Iterator

from storewarden.doctor.bugs import (
    DISCONNECTED,
    LAST_READ,
    ORPHANS,
    ORPHANS_ON_MACOS,
    TERMINAL,
    Bug,
    has,
)
from storewarden.doctor.diagnosis import (
    AS_ROOT,
    Diagnosis,
    Severity,
    Step,
    note,
    ok,
    problem,
    unknown,
)
from storewarden.doctor.facts import Daemon, Facts, Unknown
from storewarden.doctor.of_daemon import of_daemon, place_of_settings, restart
from storewarden.doctor.versions import NixVersion
from storewarden.store.fact import Known

_CLOCK_SECONDS = 5.0
"""By which a process's start, counted since boot, may seem earlier than it was."""


def of_nix(facts: Facts) -> Iterator[Diagnosis]:
    """The program, the daemon, the settings, the bugs."""
    yield _program(facts)
    yield of_daemon(facts)
    yield from _settings(facts)
    yield from _bugs(facts)


def _program(facts: Facts) -> Diagnosis:
    nix = facts.nix
    match nix.version, nix.daemon_version:
        case Unknown(reason), _:
            return _no_program(facts, reason)
        case NixVersion() as here, NixVersion() as there if here.number != there.number:
            return note(
                "nix",
                f"nix-daemon is {there.name}, and {nix.program} is {here.name}",
                "The daemon builds, so its bugs count. It may be a version that an update left"
                " running.",
                *restart(facts),
            )
        case NixVersion() as here, NixVersion():
            return ok("nix", f"{here.name} ({nix.program}, and nix-daemon)")
        case NixVersion() as here, _:
            untold = isinstance(facts.daemon, Daemon)
            more = "; which version nix-daemon is, it does not tell" if untold else ""
            return ok("nix", f"{here.name} ({nix.program}){more}")
    raise AssertionError(nix)


def _no_program(facts: Facts, reason: str) -> Diagnosis:
    if facts.nix.misconfigured:
        return problem(
            "nix",
            f"Nix does not run with its configuration: {reason}",
            "Whether a path is valid Nix has to say, so nothing can be removed. A nix-daemon"
            " that runs goes on with what it has read; one that starts now ends at once.",
            Step(f"Mend it in {place_of_settings(facts)}, or what that includes. Then Nix runs:"),
            Step("", f"{facts.nix.program} --version"),
        )
    return problem(
        "nix",
        f"Nix cannot be asked: {reason}",
        "Whether a path is valid Nix has to say, so nothing can be removed.",
        Step("Install Nix, or name its program in the configuration (nix = ...)."),
        Step("The helper, which does not read that, takes --nix."),
    )


def _settings(facts: Facts) -> Iterator[Diagnosis]:
    settings, daemon, changed = facts.nix.settings, facts.daemon, facts.nix.changed
    if facts.nix.hidden:
        yield unknown(
            "settings",
            f"This user may not read {facts.nix.hidden}",
            "Nix goes on without it and does not say so, and then tells other settings than those"
            " that nix-daemon builds with. How builds are sandboxed, and as whom they run, cannot"
            " be told.",
            *(() if facts.apart or facts.uid == 0 else (AS_ROOT,)),
        )
    elif isinstance(settings, Unknown):
        yield unknown(
            "settings",
            f"Nix does not tell its settings: {settings.reason}",
            "Whether builds are sandboxed, and as whom they run, cannot be told.",
        )
    elif isinstance(daemon, Daemon) and _is_older(daemon.began, changed):
        yield unknown(
            "settings",
            "nix-daemon has been running since before nix.conf was last changed",
            "It builds with what it read when it started. What is said here of settings is what"
            " nix.conf says now.",
            *restart(facts),
        )


def _is_older(began: float | None, changed: float | None) -> bool:
    return began is not None and changed is not None and changed > began + _CLOCK_SECONDS


def _bugs(facts: Facts) -> Iterator[Diagnosis]:
    version = facts.nix.builder
    if isinstance(version, Unknown) or facts.apart:
        return
    for bug in (ORPHANS_ON_MACOS, DISCONNECTED) if facts.kernel.darwin else (ORPHANS,):
        yield from told(bug, version, Severity.NOTE)
    if facts.kernel.emulated:
        yield from told(TERMINAL, version, Severity.PROBLEM)
    if version.number[:2] > LAST_READ and version.number < (2, 90, 0):
        yield unknown(
            "versions",
            f"{version.name} is newer than what this storewarden knows of",
            f"Which bugs it has is not known; {LAST_READ[0]}.{LAST_READ[1]} is the last that was"
            " read.",
        )


def told(bug: Bug, version: NixVersion, severity: Severity) -> Iterator[Diagnosis]:
    """That bug, if that version has it, or if that is not known."""
    match has(bug, version):
        case Known.YES:
            title = f"{version.name}: {bug.title}"
            yield Diagnosis(bug.name, severity, title, bug.why, bug.steps, bug.issues)
        case Known.UNKNOWN:
            title = f"Whether {version.name} has this is not known: {bug.title}"
            yield Diagnosis(bug.name, Severity.UNKNOWN, title, bug.why, (), bug.issues)
        case Known.NO:
            return
