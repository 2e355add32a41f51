# SPDX-License-Identifier: MIT
"""A machine that is well, for tests to change in one respect."""

from dataclasses import replace
from typing import Any

from storewarden import __version__
from storewarden.audit_reading import Verification
from storewarden.config import Config
from storewarden.daemon.starting import starting
from storewarden.daemon.status import ServiceStatus
from storewarden.doctor import diagnose
from storewarden.doctor.bugs import Emulation
from storewarden.doctor.builds import Building
from storewarden.doctor.nix import Daemon, Installation, NixConf
from storewarden.doctor.patient import Diagnosis, Patient, Severity
from storewarden.doctor.prevention import Hook
from storewarden.doctor.service import Listening, Service
from storewarden.doctor.store import Database, Room, Storage, StoreMount
from storewarden.doctor.users import Accounts, Users
from storewarden.nix_queries import Flavour, NixVersion, Settings
from storewarden.store.nix import Nix
from storewarden.store.store import Fact, Known

OK, NOTE, UNKNOWN, PROBLEM = Severity.OK, Severity.NOTE, Severity.UNKNOWN, Severity.PROBLEM
NOW = 1_700_000_000.0
GIB = 1024**3
VERSION = NixVersion(Flavour.NIX, (2, 35, 2), "2.35.2")
SETTINGS = Settings(
    sandbox="true",
    sandbox_fallback=True,
    features=frozenset({"nix-command"}),
    build_group="nixbld",
)
STRANDING = replace(SETTINGS, sandbox="false", features=frozenset({"ca-derivations"}))
STATUS = ServiceStatus(7, NOW - 60, NOW - 1, "repair", "/nix/store", program_version=__version__)
STARTING = starting("", darwin=False, systemd=True, units=[__file__])
CONFIG = Config()
WELL = Patient(
    now=NOW,
    uid=0,
    config=CONFIG,
    config_problem="",
    nix=Nix("/usr/bin/nix", CONFIG.store_dir, CONFIG.state_dir),
    darwin=False,
    systemd=True,
).having(
    Installation(
        VERSION,
        VERSION,
        Fact(Known.YES),
        Daemon(12, NOW - 3600),
        Known.YES,
        NixConf(SETTINGS, NOW - 9000),
    ),
    Emulation(gvisor=False),
    Storage(
        Known.YES,
        Database(),
        StoreMount("/", "ext4", read_only=False, wholly=Known.NO, unfit=""),
        (Room(("store", "state", "log"), "/nix/store", 100 * GIB, 50 * GIB, 10**7, 10**6),),
        (),
    ),
    Building(Known.YES, 0),
    Hook("/etc/storewarden/pre-build-hook", included=True, ours=True, took=0.02),
    Users(
        Accounts("nixbld", exists=True, members=(("nixbld1", 30001), ("nixbld2", 30002))), Known.NO
    ),
    Service(
        installed=True,
        running=True,
        status=STATUS,
        owns=False,
        helper=Listening.YES,
        audit=Verification(("/var/log/storewarden/audit.jsonl",), 4, "0" * 64),
        starting=STARTING,
        other="",
        left=False,
    ),
)
MAC = replace(WELL, darwin=True, systemd=False).having(Building(Known.UNKNOWN, 0))
IDLE: dict[str, object] = {"installed": False, "running": False, "status": None, "owns": None}
"""A service where none runs, as changes of one that is well."""
APART = Daemon(None, None)
"""nix-daemon where it runs outside of this container."""


def but(patient: Patient, kind: type, **changes: Any) -> Patient:  # noqa: ANN401 - of any fact
    """The same machine, but for those of the facts that are of that type."""
    return patient.having(replace(patient[kind], **changes))


def with_settings(patient: Patient, settings: Settings) -> Patient:
    """The same machine, where Nix is set like that."""
    return with_conf(patient, settings=settings)


def with_conf(patient: Patient, **changes: Any) -> Patient:  # noqa: ANN401 - of any fact
    """The same machine, but for that of its nix.conf."""
    return but(patient, Installation, conf=replace(patient[Installation].conf, **changes))


def with_version(patient: Patient, version: NixVersion) -> Patient:
    """The same machine, where Nix is of that version."""
    return but(patient, Installation, version=version, daemon_version=version)


def named(patient: Patient, name: str) -> Diagnosis:
    """The one diagnosis of that name."""
    [found] = [one for one in diagnose(patient) if one.name == name]
    return found


def severities(patient: Patient, severity: Severity) -> set[str]:
    """The names of what is as bad as that."""
    return {one.name for one in diagnose(patient) if one.severity is severity}


def commands(patient: Patient) -> list[str]:
    """All that is advised to be run."""
    return [step.command for one in diagnose(patient) for step in one.steps]
