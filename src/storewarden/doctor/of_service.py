# SPDX-License-Identifier: MIT
"""storewarden itself: its configuration, service, helper and audit log. Pure."""

import os
import shlex
from collections.abc import Iterator

from storewarden.auditlog import Verification
from storewarden.config import Mode
from storewarden.copyable import SET_UP
from storewarden.daemon.status import SILENCE, ServiceStatus
from storewarden.doctor.diagnosis import Diagnosis, Step, note, ok, problem, unknown
from storewarden.doctor.facts import Facts, Listening, Unknown
from storewarden.doctor.of_builds import serve
from storewarden.readable import age_text

_STATUS = Step("What it says of itself.", "storewarden status")
_MEND = Step("Set it up again.", SET_UP)


def of_service(facts: Facts) -> Iterator[Diagnosis]:
    """Configuration, service, helper, audit log."""
    if facts.config_problem:
        yield problem(
            "configuration",
            f"The configuration of the service is wrong: {facts.config_problem}",
            "The service does not start with it, or goes on with what it had read before. All"
            " that is told here is told by the defaults.",
            Step("Mend it, then check it.", "storewarden check-config"),
        )
    yield from _service(facts)
    yield from _helper(facts)
    yield _audit(facts)


def _service(facts: Facts) -> Iterator[Diagnosis]:
    service, said = facts.service, facts.service.said
    if isinstance(service.running, Unknown):
        why = service.running.reason
        yield unknown("service", f"Whether the service runs cannot be told: {why}", "", _STATUS)
    elif not service.running and service.installed:
        yield problem(
            "service",
            "The service does not run, although it was set up, or has run here",
            "Debris is left where it is until somebody looks.",
            _STATUS,
            _again(facts),
        )
    elif not service.running and facts.apart:
        yield unknown(
            "service",
            "Whether a service of storewarden runs outside cannot be seen here",
            "None runs in here, where it could remove nothing.",
        )
    elif not service.running:
        yield note(
            "service",
            "No service of storewarden runs here",
            "Debris is left where it is until somebody looks: storewarden scan.",
            serve(facts),
        )
    elif said is None:
        yield unknown("service", "The service runs and has said nothing yet", "", _STATUS)
    else:
        yield from _running(facts, said)


def _again(facts: Facts) -> Step:
    """Setup needs systemd or launchd; elsewhere the service runs as root, without a helper."""
    if system := facts.kernel.declared:
        return Step(f"Switch to the configuration of {system} again, which starts it; see its log.")
    return _MEND if facts.kernel.systemd or facts.kernel.darwin else serve(facts)


def _running(facts: Facts, said: ServiceStatus) -> Iterator[Diagnosis]:
    troubles = [f"{where}: {text}" for where, text in said.problems.items()]
    if facts.now - said.updated > SILENCE:
        troubles.append(f"it has said nothing for {age_text(facts.now - said.updated)}")
    if said.stuck_count:
        troubles.append(f"{said.stuck_count} should go and could not be removed")
    if troubles:
        yield problem(
            "service",
            f"The service runs and has a problem: {'; '.join(troubles)}",
            "Debris may stay where it is.",
            _STATUS,
        )
    elif said.mode == Mode.REPORT:
        yield note(
            "service",
            "The service runs and only reports",
            "It removes nothing.",
            Step('To have it remove what is proved dead: mode = "repair" in the configuration.'),
        )
    else:
        yield ok("service", "The service runs, and has no problem")


def _helper(facts: Facts) -> Iterator[Diagnosis]:
    service, found = facts.service, facts.helper
    where = facts.config.socket
    wanted = service.running is True and service.said is not None
    wanted = wanted and service.said is not None and service.said.mode == Mode.REPAIR
    if wanted and service.owns:
        yield ok("helper", "The service runs as root, and needs no helper")
    elif isinstance(found, Unknown):
        if wanted or service.installed:
            yield _untold(facts, found)
    elif found is Listening.YES:
        yield ok("helper", f"The helper listens at {where}")
    elif found is not Listening.NOTHING or wanted:
        yield problem(
            "helper",
            f"The helper cannot be reached at {where}: {found.value}",
            "What is proved dead is not removed.",
            _again(facts),
            Step("Or remove it by hand.", "sudo storewarden scan --yes"),
        )


def _untold(facts: Facts, found: Unknown) -> Diagnosis:
    """A socket that is not this user's; but what the service has met there is known."""
    if facts.guarded:
        return ok("helper", "The service reaches the helper")
    return unknown(
        "helper",
        f"Whether the helper can be reached is not known: {found.reason}",
        "Only the user of the service may ask it.",
        Step("Root sees it.", "sudo storewarden doctor"),
    )


def _audit(facts: Facts) -> Diagnosis:
    where = facts.config.audit_log
    match facts.audit:
        case None if facts.apart:
            return unknown(
                "audit-log",
                "There is no audit log in here; one outside cannot be seen",
                "What was removed outside is recorded there.",
            )
        case None:
            return ok("audit-log", "There is no audit log yet: nothing was removed")
        case Unknown(reason):
            return unknown(
                "audit-log",
                f"The audit log {where} cannot be verified: {reason}",
                "Only root, and who may read it, can.",
                Step("Verify it.", "sudo storewarden audit verify"),
            )
        case Verification(problem=wrong) if wrong:
            return problem(
                "audit-log",
                f"The audit log is damaged: {wrong}",
                "Somebody changed it, or a disk failed. What was removed before cannot be proved"
                " any more; removals go on.",
                Step("What is wrong with it.", "sudo storewarden audit verify"),
                Step("Keep it elsewhere, all files of it; a new one is begun then.", _aside(where)),
            )
        case Verification(open_intents=count) if count:
            return note(
                "audit-log",
                f"The audit log is sound; {count} removals were begun and not ended",
                "Something ended storewarden in the middle. The next run finishes or undoes them.",
                Step("Finish them now.", "sudo storewarden scan --yes"),
            )
        case Verification(records=count):
            return ok("audit-log", f"The audit log is sound ({count} records)")


def _aside(log: str) -> str:
    """The command that moves the log away with all that belongs to it, and loses nothing."""
    place = f"{os.path.dirname(log)}.damaged"
    files = f"{shlex.quote(os.path.splitext(log)[0])}*"
    words = f"mkdir {shlex.quote(place)} && mv {files} {shlex.quote(place)}/"
    return f"sudo sh -c {shlex.quote(words)}"
