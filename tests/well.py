# SPDX-License-Identifier: MIT
"""The facts of a machine that is well, for tests to change in one respect."""

from dataclasses import replace

from storewarden.auditlog import Verification
from storewarden.config import Config
from storewarden.daemon.status import ServiceStatus
from storewarden.doctor.diagnosing import diagnose
from storewarden.doctor.diagnosis import Diagnosis, Severity
from storewarden.doctor.facts import (
    Accounts,
    Daemon,
    Database,
    Facts,
    Kernel,
    Listening,
    Mount,
    Nix,
    Room,
    Service,
    Settings,
)
from storewarden.doctor.versions import Flavour, NixVersion
from storewarden.store.fact import Fact, Known

NOW = 1_700_000_000.0
GIB = 1024**3
VERSION = NixVersion(Flavour.NIX, (2, 35, 2), "2.35.2")
SETTINGS = Settings(
    sandbox="true",
    sandbox_fallback=True,
    features=frozenset({"nix-command"}),
    build_group="nixbld",
)
STATUS = ServiceStatus(7, NOW - 60, NOW - 1, "repair", "/nix/store")
WELL = Facts(
    now=NOW,
    uid=0,
    config=Config(),
    config_problem="",
    kernel=Kernel(darwin=False, systemd=True, namespaces=Known.YES),
    nix=Nix("/usr/bin/nix", VERSION, VERSION, SETTINGS, Fact(Known.YES), NOW - 9000),
    daemon=Daemon(0, 12, NOW - 3600),
    accounts=Accounts("nixbld", exists=True, members=(("nixbld1", 30001), ("nixbld2", 30002))),
    database=Database(realisations=0),
    store=Known.YES,
    state=Known.YES,
    mount=Mount("/", "ext4", read_only=False, wholly=Known.NO, unfit=""),
    rooms=(Room(("store", "state", "log"), "/nix/store", 100 * GIB, 50 * GIB, 10**7, 10**6),),
    roomless=(),
    shelter=Known.NO,
    service=Service(installed=True, running=True, said=STATUS, owns=False),
    helper=Listening.YES,
    audit=Verification(("/var/log/storewarden/audit.jsonl",), 4, "0" * 64),
)


def with_settings(facts: Facts, settings: Settings) -> Facts:
    """The same machine, where Nix is set like that."""
    return replace(facts, nix=replace(facts.nix, settings=settings))


def named(facts: Facts, name: str) -> Diagnosis:
    """The one diagnosis of that name."""
    [found] = [one for one in diagnose(facts) if one.name == name]
    return found


def severities(facts: Facts, severity: Severity) -> set[str]:
    """The names of what is as bad as that."""
    return {one.name for one in diagnose(facts) if one.severity is severity}
