# SPDX-License-Identifier: MIT
"""How builds run here: sandboxed or not, content-addressed or not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from storewarden.doctor.bugs import COPIES, STRANDED, TEMPORARY, diagnosed, has
from storewarden.doctor.nix import Installation, change
from storewarden.doctor.patient import Diagnosis, Patient, Severity, Step, Subject, Unknown, within
from storewarden.doctor.service import Service, service_step
from storewarden.errors import StoreUnreadableError
from storewarden.nix_queries import Settings
from storewarden.observe import misplaced
from storewarden.readable import count_text
from storewarden.store import database
from storewarden.store.paths import StoreDir
from storewarden.store.store import Known

_SANDBOX, _CONTENT_ADDRESSED = Subject("sandbox"), Subject("content-addressed")
_FEATURE = "ca-derivations"
_TABLES = ("Realisations", "BuildTraceV3")
"""Where Nix records outputs of derivations: up to 2.34; from 2.35 on."""
_SYS_ADMIN = 1 << 21
"""CAP_SYS_ADMIN, in the masks of /proc/PID/status."""
_STAYS = (
    "What a build leaves when it fails or is interrupted stays in the store. Nix removes it before"
    " the next build of the same, unless the derivation is content-addressed."
)
_LOOK = Step("What lies about now?", "storewarden scan --dry-run")


@dataclass(frozen=True, slots=True)
class Building:
    """What builds can be kept out of the store with, and what Nix has recorded of them."""

    namespaces: Known = Known.UNKNOWN
    """Whether root may make the namespaces that Nix's sandbox is made of."""
    recorded: int | None = None
    """How many outputs of derivations are recorded; None if the database cannot be read here."""


def look(patient: Patient) -> Building:
    """What the kernel lets root do, and what the database has."""
    config = patient.config
    count = within(lambda: recorded_outputs(config.state_dir, config.store_dir))
    return Building(
        Known.UNKNOWN if patient.darwin else namespaces(),
        None if isinstance(count, Unknown) else count,
    )


def recorded_outputs(state_dir: str, store_dir: StoreDir) -> int:
    """How many outputs of derivations that store's database has; `StoreUnreadableError`."""
    if why := misplaced(state_dir, store_dir):
        raise StoreUnreadableError(why)
    with database.connect(state_dir) as connection:
        marks = ", ".join("?" for _ in _TABLES)
        query = f"SELECT name FROM sqlite_master WHERE name IN ({marks})"  # noqa: S608 - ours
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours
            for (table,) in connection.execute(query, _TABLES).fetchall()
        ]
    return sum(counts)


def namespaces(proc: str = "/proc") -> Known:
    """Whether a root here may make mount and pid namespaces; nothing is tried.

    He may with CAP_SYS_ADMIN; without it by way of a user namespace, unless those are off. In a
    container a filter of system calls can forbid those too, and that cannot be read.
    """
    if not os.path.exists(f"{proc}/self/ns/mnt") or not os.path.exists(f"{proc}/self/ns/pid"):
        return Known.NO if os.path.exists(f"{proc}/self/status") else Known.UNKNOWN
    status = _fields(f"{proc}/self/status")
    try:
        bounding, filtered = int(status["CapBnd"], 16), status.get("Seccomp", "0") != "0"
    except (KeyError, ValueError):
        return Known.UNKNOWN
    if bounding & _SYS_ADMIN:
        return Known.UNKNOWN if filtered else Known.YES
    if _most_user_namespaces(proc) == 0:
        return Known.NO
    return Known.UNKNOWN


def _most_user_namespaces(proc: str) -> int | None:
    """How many there may be; 0 also where the kernel has none, None if it does not say."""
    if not os.path.exists(f"{proc}/self/ns/user"):
        return 0
    try:
        with open(f"{proc}/sys/user/max_user_namespaces", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _fields(place: str) -> dict[str, str]:
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return {}
    return {name: value.strip() for name, colon, value in lines if colon}


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """Sandbox, content-addressed derivations."""
    settings = patient[Installation].conf.settings
    # Of a daemon apart it is all another machine's; what is said of nix-daemon says so.
    if not patient[Installation].apart and not isinstance(settings, Unknown):
        yield _sandbox(patient, settings)
        yield from _content_addressed(patient, settings)


class Sandboxed(Enum):
    """Which builds leave nothing behind in the store."""

    ALL = "all"
    MOST = "most"
    """`relaxed`: not fixed-output ones, nor those with __noChroot."""
    NONE = "none"
    UNKNOWN = "unknown"


def sandboxed(patient: Patient, settings: Settings) -> Sandboxed:
    """Which builds are kept out of the store until they have succeeded."""
    if patient.darwin or settings.sandbox == "false":
        return Sandboxed.NONE  # macOS has no chroot: the output is written where it will stay
    if settings.sandbox is None:
        return Sandboxed.UNKNOWN
    if settings.sandbox_fallback is not False and patient[Building].namespaces is not Known.YES:
        none = patient[Building].namespaces is Known.NO
        return Sandboxed.NONE if none else Sandboxed.UNKNOWN
    return Sandboxed.ALL if settings.sandbox == "true" else Sandboxed.MOST


def _sandbox(patient: Patient, settings: Settings) -> Diagnosis:
    setting = f"sandbox = {settings.sandbox}"
    turned_on = settings.sandbox in {"true", "relaxed"} and not patient.darwin
    if turned_on and patient[Building].namespaces is Known.NO:
        return _no_namespaces(setting, settings)
    match sandboxed(patient, settings):
        case Sandboxed.ALL:
            return _SANDBOX.ok("Builds are sandboxed")
        case Sandboxed.MOST:
            title = (
                f"{setting}: fixed-output builds and those with __noChroot run without a sandbox"
            )
            return _SANDBOX.note(title, _STAYS)
        case Sandboxed.NONE:
            return _unsandboxed(patient, setting)
        case Sandboxed.UNKNOWN:
            return _sandbox_unknown(patient, setting, settings)


def _unsandboxed(patient: Patient, setting: str) -> Diagnosis:
    if patient.darwin:
        title = f"{setting}, and on macOS builds write their outputs into the store either way"
        return _SANDBOX.note(title, f"Its sandbox has no chroot. {_STAYS}")
    turn_on = change(patient, "sandbox = true", ", if namespaces work here")
    return _SANDBOX.note("Builds run without a sandbox", _STAYS, *turn_on)


def _sandbox_unknown(patient: Patient, setting: str, settings: Settings) -> Diagnosis:
    if settings.sandbox is None:
        return _SANDBOX.unknown("Whether builds are sandboxed Nix does not tell")
    return _SANDBOX.unknown(
        f"{setting}, but whether namespaces may be made here cannot be seen",
        "Where they may not, sandbox-fallback has Nix build without a sandbox and not say so.",
        *change(patient, "sandbox-fallback = false", " to have such builds fail"),
    )


def _no_namespaces(setting: str, settings: Settings) -> Diagnosis:
    title = f"{setting}, but this kernel or container refuses what a sandbox is made of"
    if settings.sandbox_fallback is False:
        why, other = "Every build fails, as sandbox-fallback is off.", "sandbox = false"
    else:
        why = f"sandbox-fallback has Nix build without one and not say so. {_STAYS}"
        other = "sandbox-fallback = false to be told"
    step = Step(f"Let the container make namespaces, or set {other}.")
    return _SANDBOX.problem(title, why, step)


def _content_addressed(patient: Patient, settings: Settings) -> Iterator[Diagnosis]:
    count = patient[Building].recorded
    if settings.features is None:
        yield _CONTENT_ADDRESSED.unknown(
            "Whether content-addressed derivations are on Nix does not tell"
        )
        return
    if _FEATURE not in settings.features:
        yield _switched_off(count)
        return
    which = sandboxed(patient, settings)
    version = patient[Installation].builder
    strands = Known.UNKNOWN if isinstance(version, Unknown) else has(STRANDED, version)
    if which is Sandboxed.ALL or strands is Known.NO:
        yield _CONTENT_ADDRESSED.ok(
            "Content-addressed derivations are on, and leave no output behind"
        )
    elif which is Sandboxed.UNKNOWN:
        yield _CONTENT_ADDRESSED.unknown(
            "Content-addressed derivations are on; whether they are built in a sandbox is unknown",
            f"Without a sandbox: {STRANDED.title}. {STRANDED.why}",
            _LOOK,
        )
    else:
        yield _stranding(patient, which, strands, count)
        if not isinstance(version, Unknown):
            yield from diagnosed(TEMPORARY, version, Severity.NOTE)
            yield from diagnosed(COPIES, version, Severity.NOTE)


def _switched_off(count: int | None) -> Diagnosis:
    if count:
        return _CONTENT_ADDRESSED.note(
            "Content-addressed derivations are off, but have been built here",
            f"Nix has recorded {count} of their outputs, which it does only where they are on. A"
            " trusted user can switch them on for himself.",
            _LOOK,
        )
    return _CONTENT_ADDRESSED.ok("Content-addressed derivations are off")


def _stranding(patient: Patient, which: Sandboxed, strands: Known, count: int | None) -> Diagnosis:
    some = "some of them " if which is Sandboxed.MOST else ""
    used = f" Nix has recorded {count_text(count, 'output')} so far." if count else ""
    sure = "" if strands is Known.YES else " (Whether this version still does that is not known.)"
    why = f"Here {STRANDED.title}. {STRANDED.why}{used}{sure}"
    title = f"Content-addressed derivations are on, and {some}built without a sandbox"
    issues = STRANDED.issues
    if patient[Service].guarded:
        why += " The service removes it as soon as it is dead."
        return _CONTENT_ADDRESSED.note(title, why, issues=issues)
    about = _CONTENT_ADDRESSED
    say = about.note if which is Sandboxed.MOST else about.problem
    return say(title, why, service_step(patient), _LOOK, issues=issues)
