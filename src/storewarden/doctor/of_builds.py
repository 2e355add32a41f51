# SPDX-License-Identifier: MIT
"""How builds run here: sandboxed or not, content-addressed or not. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum

from storewarden.copyable import DECLARE, SET_UP
from storewarden.doctor.bugs import COPIES, STRANDED, TEMPORARY, has
from storewarden.doctor.diagnosis import Diagnosis, Severity, Step, note, ok, problem, unknown
from storewarden.doctor.facts import Database, Facts, Settings, Unknown
from storewarden.doctor.of_daemon import setting
from storewarden.doctor.of_nix import told
from storewarden.doctor.of_users import of_users
from storewarden.store.fact import Known

_FEATURE = "ca-derivations"
_STAYS = (
    "What a build leaves when it fails or is interrupted stays in the store. Nix removes it before"
    " the next build of the same, unless the derivation is content-addressed."
)
_LOOK = Step("What lies about now?", "storewarden scan --dry-run")


class Sandboxed(Enum):
    """Which builds leave nothing behind in the store."""

    ALL = "all"
    MOST = "most"
    """`relaxed`: not fixed-output ones, nor those with __noChroot."""
    NONE = "none"
    UNKNOWN = "unknown"


def of_builds(facts: Facts) -> Iterator[Diagnosis]:
    """Sandbox, content-addressed derivations, build users, their home."""
    if facts.apart:
        return  # it is all another machine's; what is said of nix-daemon says so
    settings = facts.nix.settings
    if not isinstance(settings, Unknown):
        yield _sandbox(facts, settings)
        yield from _content_addressed(facts, settings)
        yield from of_users(facts, settings)
    yield _shelter(facts)


def sandboxed(facts: Facts, settings: Settings) -> Sandboxed:
    """Which builds are kept out of the store until they have succeeded."""
    if facts.kernel.darwin or settings.sandbox == "false":
        return Sandboxed.NONE  # macOS has no chroot: the output is written where it will stay
    if settings.sandbox is None:
        return Sandboxed.UNKNOWN
    if settings.sandbox_fallback is not False and facts.kernel.namespaces is not Known.YES:
        none = facts.kernel.namespaces is Known.NO
        return Sandboxed.NONE if none else Sandboxed.UNKNOWN
    return Sandboxed.ALL if settings.sandbox == "true" else Sandboxed.MOST


def _sandbox(facts: Facts, settings: Settings) -> Diagnosis:
    said = f"sandbox = {settings.sandbox}"
    wanted = settings.sandbox in {"true", "relaxed"} and not facts.kernel.darwin
    if wanted and facts.kernel.namespaces is Known.NO:
        return _no_namespaces(said, settings)
    match sandboxed(facts, settings):
        case Sandboxed.ALL:
            return ok("sandbox", "Builds are sandboxed")
        case Sandboxed.MOST:
            title = f"{said}: fixed-output builds and those with __noChroot run without a sandbox"
            return note("sandbox", title, _STAYS)
        case Sandboxed.NONE:
            return _unsandboxed(facts, said)
        case Sandboxed.UNKNOWN:
            return _sandbox_unknown(facts, said, settings)


def _unsandboxed(facts: Facts, said: str) -> Diagnosis:
    if facts.kernel.darwin:
        title = f"{said}, and on macOS builds write their outputs into the store either way"
        return note("sandbox", title, f"Its sandbox has no chroot. {_STAYS}")
    turn_on = setting(facts, "sandbox = true", ", if namespaces work here")
    return note("sandbox", "Builds run without a sandbox", _STAYS, *turn_on)


def _sandbox_unknown(facts: Facts, said: str, settings: Settings) -> Diagnosis:
    if settings.sandbox is None:
        return unknown("sandbox", "Whether builds are sandboxed Nix does not tell", "")
    return unknown(
        "sandbox",
        f"{said}, but whether namespaces may be made here cannot be seen",
        "Where they may not, sandbox-fallback has Nix build without a sandbox and not say so.",
        *setting(facts, "sandbox-fallback = false", " to have such builds fail"),
    )


def _no_namespaces(said: str, settings: Settings) -> Diagnosis:
    if settings.sandbox_fallback is False:
        return problem(
            "sandbox",
            f"{said}, but this kernel or container refuses what a sandbox is made of",
            "Every build fails, as sandbox-fallback is off.",
            Step("Let the container make namespaces, or set sandbox = false."),
        )
    return problem(
        "sandbox",
        f"{said}, but this kernel or container refuses what a sandbox is made of",
        f"sandbox-fallback has Nix build without one and not say so. {_STAYS}",
        Step("Let the container make namespaces, or set sandbox-fallback = false to be told."),
    )


def _content_addressed(facts: Facts, settings: Settings) -> Iterator[Diagnosis]:
    name = "content-addressed"
    count = facts.database.realisations if isinstance(facts.database, Database) else None
    if settings.features is None:
        yield unknown(name, "Whether content-addressed derivations are on Nix does not tell", "")
        return
    if _FEATURE not in settings.features:
        yield _switched_off(name, count)
        return
    which = sandboxed(facts, settings)
    known = Known.UNKNOWN if isinstance(v := facts.nix.builder, Unknown) else has(STRANDED, v)
    if which is Sandboxed.ALL or known is Known.NO:
        yield ok(name, "Content-addressed derivations are on, and leave no output behind")
    elif which is Sandboxed.UNKNOWN:
        yield unknown(
            name,
            "Content-addressed derivations are on; whether they are built in a sandbox is unknown",
            f"Without a sandbox: {STRANDED.title}. {STRANDED.why}",
            _LOOK,
        )
    else:
        yield _stranding(facts, which, known, count)
        if not isinstance(v, Unknown):
            yield from told(TEMPORARY, v, Severity.NOTE)
            yield from told(COPIES, v, Severity.NOTE)


def _switched_off(name: str, count: int | None) -> Diagnosis:
    if count:
        return note(
            name,
            "Content-addressed derivations are off, but have been built here",
            f"Nix has recorded {count} of their outputs, which it does only where they are on. A"
            " trusted user can switch them on for himself.",
            _LOOK,
        )
    return ok(name, "Content-addressed derivations are off")


def _stranding(facts: Facts, which: Sandboxed, known: Known, count: int | None) -> Diagnosis:
    some = "some of them " if which is Sandboxed.MOST else ""
    used = f" Nix has recorded {count} outputs so far." if count else ""
    sure = "" if known is Known.YES else " (Whether this version still does that is not known.)"
    why = f"Here {STRANDED.title}. {STRANDED.why}{used}{sure}"
    title = f"Content-addressed derivations are on, and {some}built without a sandbox"
    if facts.guarded:
        text = f"{why} The service removes it as soon as it is dead."
        found = note("content-addressed", title, text)
    else:
        severity = Severity.NOTE if which is Sandboxed.MOST else Severity.PROBLEM
        steps = (serve(facts), _LOOK)
        found = Diagnosis("content-addressed", severity, title, why, steps)
    return replace(found, issues=STRANDED.issues)


def serve(facts: Facts) -> Step:
    """How storewarden is made to look after the store all the time."""
    if system := facts.kernel.declared:
        return Step(f"In the configuration of {system}: {DECLARE}")
    if facts.kernel.systemd or facts.kernel.darwin:
        return Step("Have debris removed as soon as it is dead.", SET_UP)
    return Step("Have debris removed as soon as it is dead; as root.", "storewarden watch")


def _shelter(facts: Facts) -> Diagnosis:
    name, place = "homeless-shelter", "/homeless-shelter"
    if facts.shelter is Known.NO:
        return ok(name, f"There is no {place}")
    if facts.shelter is Known.UNKNOWN:
        return unknown(name, f"Whether {place} exists cannot be seen", "")
    return replace(
        problem(
            name,
            f"{place} exists",
            "A builder without a sandbox made it. Nix refuses to build without a sandbox as long"
            " as it is there.",
            Step("See what is in it; it is nobody's home.", f"sudo find {place} | head"),
            Step("Remove it.", f"sudo rm -r {place}"),
        ),
        issues=("NixOS/nix#11295", "ipetkov/crane#815"),
    )
