# SPDX-License-Identifier: MIT
"""What facts mean, of where the store lies and of storewarden itself."""

from dataclasses import replace

import pytest

from storewarden.auditlog import Verification
from storewarden.doctor.diagnosing import diagnose
from storewarden.doctor.diagnosis import Severity
from storewarden.doctor.facts import (
    Daemon,
    Database,
    Facts,
    Kernel,
    Listening,
    Mount,
    Room,
    Service,
    Unknown,
)
from storewarden.store.fact import Known
from well import GIB, NOW, STATUS, WELL, named, severities

OK, NOTE, UNKNOWN, PROBLEM = Severity.OK, Severity.NOTE, Severity.UNKNOWN, Severity.PROBLEM
MIB = 1024**2
READ_ONLY = Mount("/nix/store", "ext4", read_only=True, wholly=Known.NO, unfit="")
IDLE = Service(installed=False, running=False, said=None, owns=None)


@pytest.mark.parametrize(
    ("mount", "service", "severity"),
    [
        (READ_ONLY, WELL.service, OK),
        (READ_ONLY, IDLE, NOTE),
        (replace(READ_ONLY, wholly=Known.YES), WELL.service, PROBLEM),
        (replace(READ_ONLY, unfit="it is on nfs"), WELL.service, PROBLEM),
        (replace(READ_ONLY, kind="", unfit="it cannot be told"), WELL.service, UNKNOWN),
        (Unknown("the mounts cannot be read"), WELL.service, UNKNOWN),
    ],
)
def test_a_store_is_writable_or_made_so_or_neither(
    mount: Mount | Unknown, service: Service, severity: Severity
) -> None:
    facts = replace(WELL, mount=mount, service=service)
    assert named(facts, "store").severity is severity


def test_where_root_may_not_mount_a_read_only_store_is_a_problem() -> None:
    kernel = Kernel(darwin=False, namespaces=Known.NO)
    facts = replace(WELL, mount=READ_ONLY, service=IDLE, kernel=kernel)
    assert named(facts, "store").severity is PROBLEM


def test_in_a_sandbox_a_read_only_store_is_as_it_should_be() -> None:
    facts = replace(WELL, mount=READ_ONLY, daemon=Daemon(0, None, None))
    assert named(facts, "store").severity is NOTE
    assert not [one for one in diagnose(facts) if one.name.startswith("room")]


@pytest.mark.parametrize(
    ("places", "free", "severity"),
    [
        (("store",), 600 * MIB, NOTE),
        (("store",), 400 * MIB, PROBLEM),
        (("log",), 400 * MIB, NOTE),
        (("log",), MIB // 2, PROBLEM),
        (("log", "store"), 400 * MIB, PROBLEM),
        (("state",), 50 * GIB, OK),
    ],
)
def test_how_much_room_is_too_little_depends_on_what_needs_it(
    places: tuple[str, ...], free: int, severity: Severity
) -> None:
    room = Room(places, "/nix", 100 * GIB, free, 0, 0)
    assert named(replace(WELL, rooms=(room,)), f"room-{places[0]}").severity is severity


def test_a_disk_without_inodes_is_full_too() -> None:
    room = Room(("state",), "/nix/var/nix", 100 * GIB, 50 * GIB, 10**6, 3)
    assert severities(replace(WELL, rooms=(room,)), PROBLEM) == {"inodes-state"}


def test_what_cannot_be_told_of_a_disk_is_unknown() -> None:
    facts = replace(WELL, rooms=(), roomless=(("store", "there was no answer within 10 s"),))
    assert named(facts, "room-store").severity is UNKNOWN


@pytest.mark.parametrize(
    ("database", "severity"),
    [
        (Database(unseen="this user cannot open it"), UNKNOWN),
        (Database(broken="it is no database"), PROBLEM),
        (Unknown("there was no answer within 10 s"), UNKNOWN),
    ],
)
def test_a_database_is_read_or_unseen_or_broken(
    database: Database | Unknown, severity: Severity
) -> None:
    assert named(replace(WELL, database=database), "database").severity is severity


@pytest.mark.parametrize(
    ("service", "severity"),
    [
        (IDLE, NOTE),
        (replace(IDLE, installed=True), PROBLEM),
        (replace(WELL.service, running=Unknown("permission denied")), UNKNOWN),
        (replace(WELL.service, said=None), UNKNOWN),
        (replace(WELL.service, said=replace(STATUS, mode="report")), NOTE),
        (replace(WELL.service, said=replace(STATUS, problems={"nix": "silent"})), PROBLEM),
        (replace(WELL.service, said=replace(STATUS, stuck_count=2)), PROBLEM),
        (replace(WELL.service, said=replace(STATUS, updated=NOW - 3600)), PROBLEM),
    ],
)
def test_a_service_is_well_or_not_or_not_wanted(service: Service, severity: Severity) -> None:
    assert named(replace(WELL, service=service), "service").severity is severity


@pytest.mark.parametrize(
    "found", [Listening.NOTHING, Listening.NO_SOCKET, Listening.SILENT], ids=lambda one: one.name
)
def test_a_helper_that_is_missed_is_a_problem(found: Listening) -> None:
    facts = replace(WELL, helper=found)
    assert severities(facts, PROBLEM) == {"helper"}
    assert not facts.guarded


def helpers(facts: Facts) -> list[Severity]:
    return [one.severity for one in diagnose(facts) if one.name == "helper"]


def test_a_helper_that_nobody_needs_is_not_missed() -> None:
    nowhere = replace(WELL, helper=Listening.NOTHING)
    assert helpers(replace(nowhere, service=replace(WELL.service, owns=True))) == [OK]
    assert helpers(replace(nowhere, service=IDLE)) == []
    reports = replace(WELL.service, said=replace(STATUS, mode="report"))
    assert helpers(replace(nowhere, service=reports)) == []


def test_what_the_service_reaches_need_not_be_reached_by_others() -> None:
    closed = replace(WELL, helper=Unknown("permission denied"))
    assert helpers(closed) == [OK]
    stopped = replace(WELL.service, running=False)
    assert helpers(replace(closed, service=stopped)) == [UNKNOWN]


@pytest.mark.parametrize(
    ("audit", "severity"),
    [
        (None, OK),
        (Unknown("permission denied"), UNKNOWN),
        (Verification((), 0, "", problem="line 3: the hash is wrong"), PROBLEM),
        (Verification((), 3, "", open_intents=1), NOTE),
    ],
)
def test_an_audit_log_is_sound_or_not(
    audit: Verification | Unknown | None, severity: Severity
) -> None:
    assert named(replace(WELL, audit=audit), "audit-log").severity is severity


def test_in_a_sandbox_what_is_not_there_may_be_outside() -> None:
    facts = replace(WELL, daemon=Daemon(0, None, None), audit=None, service=IDLE)
    assert {"audit-log", "service", "daemon"} <= severities(facts, UNKNOWN)


def test_a_wrong_configuration_is_a_problem() -> None:
    facts = replace(WELL, config_problem="/etc/storewarden/config.toml: unknown key 'x'")
    assert severities(facts, PROBLEM) == {"configuration"}


@pytest.mark.parametrize(("shelter", "severity"), [(Known.YES, PROBLEM), (Known.UNKNOWN, UNKNOWN)])
def test_homeless_shelter_is_missed_by_nobody(shelter: Known, severity: Severity) -> None:
    assert named(replace(WELL, shelter=shelter), "homeless-shelter").severity is severity
