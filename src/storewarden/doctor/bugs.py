# SPDX-License-Identifier: MIT
"""Bugs of Nix that leave debris or hide it, and which versions have them.

Read in the sources of 2.3.16 to 2.35.2, Determinate 3.20 and 3.22, and Lix 2.95; of a newer version
nothing is known. Master of August 2026 was read, too, but what 2.36 will be is not released yet.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from storewarden import processes
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Patient, Severity, Step, Subject, Unknown
from storewarden.nix_queries import Flavour, NixVersion
from storewarden.store.store import Known

_LAST_READ = (2, 35)
_LIX_READ = (2, 95)


@dataclass(frozen=True, slots=True)
class Bug:
    """A bug, and where it is."""

    name: str
    title: str
    why: str
    issues: tuple[str, ...]
    since: tuple[int, int] = (2, 3)
    """The first version that has it, among those that were read."""
    fixed: tuple[int, int] | None = None
    """The first version without it."""
    backports: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """By older release, from which of its patch releases on it is mended too."""
    unread: tuple[tuple[int, int], ...] = ()
    """Releases before `fixed` of which it is not known."""
    lix: Known = Known.UNKNOWN

    @property
    def steps(self) -> tuple[Step, ...]:
        """What helps."""
        if self.fixed is None:
            return ()
        return (Step(f"Update Nix to {self.fixed[0]}.{self.fixed[1]} or newer."),)


def has(bug: Bug, version: NixVersion) -> Known:
    """Whether that version has the bug."""
    release = version.number[:2]
    if version.flavour is Flavour.LIX:
        return bug.lix if release >= _LIX_READ else Known.UNKNOWN
    if release < bug.since:
        return Known.NO
    if bug.fixed is None:
        return Known.YES if release <= _LAST_READ else Known.UNKNOWN
    if release == bug.fixed and version.early:
        return Known.UNKNOWN
    if release >= bug.fixed or version.number[2] >= bug.backports.get(release, 10**9):
        return Known.NO
    return Known.UNKNOWN if release in bug.unread else Known.YES


STRANDED = Bug(
    "stranded-outputs",
    "an unsandboxed content-addressed build that fails or is interrupted leaves its output",
    "The next build of it ends with 'Permission denied', or registers the stale files as valid.",
    ("NixOS/nix#13703", "DeterminateSystems/nix-src#487"),
    since=(2, 4),
    lix=Known.NO,  # 2.95 has no floating content-addressed derivations any more
)
ORPHANS = Bug(
    "orphaned-builders",
    "a builder outlives its worker if that is killed, and goes on writing with no lock held",
    "Its output is not dead before it ends: storewarden waits for each process of a build user that"
    " no live build has started.",
    ("NixOS/nix#15193",),
    fixed=(2, 34),
)
ORPHANS_ON_MACOS = replace(
    ORPHANS,
    title="on macOS a builder outlives its worker if that is killed, and goes on writing with no"
    " lock",
    fixed=None,
    lix=Known.YES,  # there is no death signal on macOS
)
TERMINAL = Bug(
    "terminal-error",
    "under gVisor Nix takes the end of a builder's terminal for an error",
    "Builds fail with 'reading a line: Input/output error', and leave their locks and outputs.",
    ("NixOS/nix#15181", "NixOS/nix#15323"),
    fixed=(2, 34),
)
COPIES = Bug(
    "redundant-copies",
    "a content-addressed build that succeeds without a sandbox leaves a second copy of its output"
    " where the result was there already",
    "It is root's by then, and of no use: storewarden knows it by its derivation and removes it.",
    (),
    since=(2, 4),
    fixed=(2, 32),
    lix=Known.NO,
)
TEMPORARY = Bug(
    "temporary-names",
    "an unsandboxed build that is cut off while Nix rewrites its output leaves OUTPUT.tmp",
    "The next one that gets as far ends with \"path '...tmp' already exists\". storewarden knows it"
    " by its derivation and removes it.",
    ("NixOS/nix#15839", "NixOS/nix#15709"),
    since=(2, 4),
    fixed=(2, 35),
)
DISCONNECTED = Bug(
    "unnoticed-interrupts",
    "on macOS nix-daemon may not notice that its client has been interrupted",
    "The build goes on to its end and holds its locks; the next one waits for it.",
    ("NixOS/nix#7584",),
    fixed=(2, 34),
    backports={(2, 28): 6, (2, 30): 4, (2, 31): 3},
    unread=((2, 29), (2, 32), (2, 33)),
)


@dataclass(frozen=True, slots=True)
class Emulation:
    """What runs as the kernel, as far as bugs of Nix depend on it."""

    gvisor: bool
    """It calls itself Linux."""


def look(patient: Patient) -> Emulation:
    """Whether gVisor runs below everything."""
    return Emulation(not patient.darwin and processes.emulated())


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """The bugs that matter everywhere, of the version that builds."""
    version = patient[Installation].builder
    if isinstance(version, Unknown) or patient[Installation].apart:
        return
    for bug in (ORPHANS_ON_MACOS, DISCONNECTED) if patient.darwin else (ORPHANS,):
        yield from diagnosed(bug, version, Severity.NOTE)
    if patient[Emulation].gvisor:
        yield from diagnosed(TERMINAL, version, Severity.PROBLEM)
    if version.number[:2] > _LAST_READ and version.number < (2, 90, 0):
        yield Subject("versions").unknown(
            f"{version.name} is newer than what this storewarden knows of",
            f"Which bugs it has is not known; {_LAST_READ[0]}.{_LAST_READ[1]} is the last that was"
            " read.",
        )


def diagnosed(bug: Bug, version: NixVersion, severity: Severity) -> Iterator[Diagnosis]:
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
