# SPDX-License-Identifier: MIT
"""storewarden itself: its configuration, service, helper and audit log."""

import os
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath

from storewarden import audit_reading, processes
from storewarden.audit_reading import Verification
from storewarden.config import DEFAULT_CONFIG, MANIFEST, Mode
from storewarden.daemon.starting import Starting, how_started
from storewarden.daemon.status import (
    SILENCE,
    ServiceStatus,
    is_held,
    other_version,
    read_status,
)
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Patient, Step, Subject, Unknown, attempt, within
from storewarden.readable import DECLARE, REMOVE, SET_UP, TAKE_BACK, WATCH, age_text, count_text

_SERVICE, _HELPER, _AUDIT_LOG = Subject("service"), Subject("helper"), Subject("audit-log")
_SETUP, _PROGRAM = Subject("setup"), Subject("own-version")
_LISTENS = 0x10000
"""__SO_ACCEPTCON, among the flags in /proc/net/unix (net/unix/af_unix.c)."""
_CONNECT_SECONDS = 5.0
_LOG_SECONDS = 60.0
_STATUS = Step("What it says of itself.", "storewarden status")


class Listening(Enum):
    """What is at the helper's socket."""

    NOTHING = "nothing is there"
    NO_SOCKET = "what is there is no socket"
    SILENT = "nobody listens there"
    YES = "somebody listens there"


@dataclass(frozen=True, slots=True)
class Service:
    """storewarden's own service, its helper, and what they recorded."""

    installed: bool
    """Whether there is a unit, a job, a configuration, or a status that was not its last word."""
    running: bool | Unknown
    status: ServiceStatus | None
    """What it last said."""
    owns: bool | None
    """Whether it runs as root, and so needs no helper; None if that is not seen."""
    helper: Listening | Unknown
    audit: Verification | Unknown | None
    """None if there is no audit log yet."""
    starting: Starting
    """How it is started here."""
    other: str
    """That it is of another version than this program; empty if it is not."""
    left: bool
    """Whether `storewarden setup` has written files here and not taken them back."""

    @property
    def guarded(self) -> bool:
        """Whether a service is at work that removes what is proved dead, and can."""
        if self.running is not True or self.status is None or self.status.problems:
            return False
        reached = isinstance(self.helper, Unknown) or self.helper is Listening.YES
        return self.status.mode == Mode.REPAIR and (self.owns is True or reached)


def look(patient: Patient) -> Service:
    """Whether it runs, told as `storewarden status` does, and what it last said."""
    config, starting = patient.config, how_started()
    status = attempt(lambda: read_status(config.runtime_dir))
    if isinstance(status, Unknown):
        status = None
    running = within(lambda: is_held(config.runtime_dir))
    user = within(lambda: _user(status)) if running is True else None
    return Service(
        installed=(status is not None and not status.ended)
        or bool(starting.unit)
        or os.path.lexists(DEFAULT_CONFIG),
        running=running,
        status=status,
        owns=user == "root" if isinstance(user, str) else None,
        helper=within(lambda: look_at_helper(config.socket)),
        audit=within(lambda: look_at_audit(config.audit_log), _LOG_SECONDS),
        starting=starting,
        other=other_version(status),
        left=os.path.lexists(MANIFEST),
    )


def _user(status: ServiceStatus | None) -> str | None:
    """As whom the process runs that wrote it; its name may come from a directory service."""
    return processes.running(status.pid).user if status else None


def look_at_helper(path: str, table: str = "/proc/net/unix") -> Listening:
    """What is at its socket. `OSError` where that cannot be told.

    Who connects wakes it, and it says so in its log; therefore the kernel's table of sockets is
    read first. It leaves out those of other network namespaces, and is Linux's: where it does not
    have it, connecting does no harm, because nobody is there, or it cannot be told otherwise.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return Listening.NO_SOCKET
    except FileNotFoundError:
        return Listening.NOTHING
    if path in listeners(table):
        return Listening.YES
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return Listening.SILENT
    return Listening.YES


def listeners(table: str) -> frozenset[str]:
    """The paths of Unix sockets on which somebody listens, as far as that table has them."""
    found = set()
    try:
        with open(table, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            next(file, None)  # the names of the columns
            for line in file:
                # Any user may bind a socket with a newline in its name, which makes other lines.
                with suppress(ValueError):
                    _, _, _, flags, _, _, _, *path = line.rstrip("\n").split(None, 7)
                    if path and int(flags, 16) & _LISTENS:
                        found.update(path)
    except OSError:
        return frozenset()
    return frozenset(found)


def look_at_audit(path: str) -> Verification | None:
    """The log verified; None if there is none."""
    try:
        os.listdir(os.path.dirname(path))  # a log that may not be seen is not absent
    except FileNotFoundError:
        return None
    return audit_reading.verify(path) if audit_reading.log_files(path) else None


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """Configuration, service, helper, audit log."""
    if patient.config_problem:
        yield Subject("configuration").problem(
            f"The configuration of the service is wrong: {patient.config_problem}",
            "The service does not start with it, or goes on with what it had read before. All"
            " that is told here is told by the defaults.",
            Step("Mend it, then check it.", "storewarden check-config"),
        )
    yield from _service(patient)
    yield from _left(patient)
    yield from _helper(patient)
    yield _audit(patient)


def _service(patient: Patient) -> Iterator[Diagnosis]:
    service = patient[Service]
    hindered = service.starting.hindered
    if isinstance(service.running, Unknown):
        why = service.running.reason
        yield _SERVICE.unknown(f"Whether the service runs cannot be told: {why}", "", _STATUS)
    elif not service.running and service.installed:
        yield _SERVICE.problem(
            "The service does not run, although it was set up, or was not told to end",
            "; ".join(filter(None, ("Debris is left where it is until somebody looks", hindered))),
            *_again(patient),
        )
    elif not service.running and patient[Installation].apart:
        yield _SERVICE.unknown(
            "Whether a service of storewarden runs outside cannot be seen here",
            "None runs in here, where it could remove nothing.",
        )
    elif not service.running:
        yield _SERVICE.note(
            "No service of storewarden runs here",
            "Debris is left where it is until somebody looks: storewarden scan.",
            service_step(patient),
        )
    elif service.status is None:
        yield _SERVICE.unknown("The service runs and has said nothing yet", "", _STATUS)
    else:
        yield from _running(patient, service.status)


def service_step(patient: Patient) -> Step:
    """How storewarden is made to look after the store all the time."""
    if system := patient.declared:
        return Step(f"In the configuration of {system}: {DECLARE}")
    if patient.systemd or patient.darwin:
        return Step("Have debris removed as soon as it is dead.", SET_UP)
    return Step("Have debris removed as soon as it is dead; as root.", WATCH)


def _again(patient: Patient) -> Iterator[Step]:
    """How one that does not run is started; elsewhere than with systemd or launchd by hand."""
    starting = patient[Service].starting
    if starting.start:
        yield Step("Start it.", starting.start)
        yield Step("Its log says why it ended.", starting.log)
    else:
        yield _renewal(patient)


def _renewal(patient: Patient) -> Step:
    """What brings service and helper to what this program would set up."""
    if system := patient.declared:
        return Step(f"Switch to the configuration of {system} again, which starts it; see its log.")
    if patient.systemd or patient.darwin:
        return Step("Set it up again.", SET_UP)
    return service_step(patient)


def _left(patient: Patient) -> Iterator[Diagnosis]:
    """Files of setup where a module does its work now: some are in the way, some run an old one."""
    if patient[Service].left and patient.declared:
        yield _SETUP.note(
            f"storewarden setup has left files here, which {patient.declared} knows nothing of",
            f"They are listed in {MANIFEST}. What {patient.declared} has put in the place of some"
            " is kept.",
            Step("Take them away.", TAKE_BACK),
        )


def _running(patient: Patient, status: ServiceStatus) -> Iterator[Diagnosis]:
    troubles = [f"{where}: {text}" for where, text in status.problems.items()]
    if patient.now - status.updated > SILENCE:
        troubles.append(f"it has said nothing for {age_text(patient.now - status.updated)}")
    if status.stuck_count:
        troubles.append(f"{status.stuck_count} should go and could not be removed")
    if patient[Service].other:
        yield _PROGRAM.note(
            f"Of two versions: {patient[Service].other}",
            "What is said here may not be so there.",
            _renewal(patient),
        )
    if troubles:
        yield _SERVICE.problem(
            f"The service runs and has a problem: {'; '.join(troubles)}",
            "Debris may stay where it is.",
            _STATUS,
        )
    elif status.mode == Mode.REPORT:
        yield _SERVICE.note(
            "The service runs and only reports",
            "It removes nothing.",
            Step('To have it remove what is proved dead: mode = "repair" in the configuration.'),
        )
    else:
        yield _SERVICE.ok("The service runs, and has no problem")


def _helper(patient: Patient) -> Iterator[Diagnosis]:
    service, found = patient[Service], patient[Service].helper
    where = patient.config.socket
    running, status = service.running is True, service.status
    needed = running and status is not None and status.mode == Mode.REPAIR
    if needed and service.owns:
        yield _HELPER.ok("The service runs as root, and needs no helper")
    elif isinstance(found, Unknown):
        if needed or service.installed:
            yield _helper_unseen(patient, found)
    elif found is Listening.YES:
        yield _HELPER.ok(f"The helper listens at {where}")
    elif found is not Listening.NOTHING or needed:
        yield _HELPER.problem(
            f"The helper cannot be reached at {where}: {found.value}",
            "What is proved dead is not removed.",
            _renewal(patient),
            Step("Or remove it by hand.", REMOVE),
        )


def _helper_unseen(patient: Patient, found: Unknown) -> Diagnosis:
    """A socket that is not this user's; but what the service has met there is known."""
    if patient[Service].guarded:
        return _HELPER.ok("The service reaches the helper")
    return _HELPER.unknown(
        f"Whether the helper can be reached is not known: {found.reason}",
        "Only the user of the service may ask it.",
        Step("Root sees it.", "sudo storewarden doctor"),
    )


def _audit(patient: Patient) -> Diagnosis:
    where = patient.config.audit_log
    match patient[Service].audit:
        case None if patient[Installation].apart:
            return _AUDIT_LOG.unknown(
                "There is no audit log in here; one outside cannot be seen",
                "What was removed outside is recorded there.",
            )
        case None:
            return _AUDIT_LOG.ok("There is no audit log yet: nothing was removed")
        case Unknown(reason):
            return _AUDIT_LOG.unknown(
                f"The audit log {where} cannot be verified: {reason}",
                "Only root, and who may read it, can.",
                Step("Verify it.", "sudo storewarden audit verify"),
            )
        case Verification(problem=wrong) if wrong:
            return _AUDIT_LOG.problem(
                f"The audit log is damaged: {wrong}",
                "Somebody changed it, or a disk failed. What was removed before cannot be proved"
                " any more; removals go on.",
                Step("What is wrong with it.", "sudo storewarden audit verify"),
                Step("Keep it elsewhere, all files of it; a new one is begun then.", _aside(where)),
            )
        case Verification(open_intents=count) if count:
            return _AUDIT_LOG.note(
                f"The audit log is sound; {count_text(count, 'removal')} begun and not ended",
                "Something ended storewarden in the middle. The next run finishes or undoes them.",
                Step("Finish them now.", "sudo storewarden scan --yes"),
            )
        case Verification(records=count):
            return _AUDIT_LOG.ok(f"The audit log is sound ({count_text(count, 'record')})")


def _aside(log: str) -> str:
    """The command that moves the log away with all that belongs to it, and loses nothing."""
    place = f"{PurePosixPath(log).parent}.damaged"
    files = f"{shlex.quote(str(PurePosixPath(log).with_suffix('')))}*"
    words = f"mkdir {shlex.quote(place)} && mv {files} {shlex.quote(place)}/"
    return f"sudo sh -c {shlex.quote(words)}"
