# SPDX-License-Identifier: MIT
"""The service: real sockets, a real lock, real audit logs; and what it means how they are."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from command import ROOT
from stand_in import listening
from storewarden.audit_reading import Verification
from storewarden.config import DEFAULT_CONFIG, Config
from storewarden.daemon.starting import Starting
from storewarden.daemon.status import ServiceStatus, held, write_status
from storewarden.doctor import diagnose
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Patient, Severity, Unknown
from storewarden.doctor.service import (
    Listening,
    Service,
    listeners,
    look,
    look_at_audit,
    look_at_helper,
)
from storewarden.readable import SET_UP, WATCH
from well import (
    APART,
    IDLE,
    NOTE,
    NOW,
    OK,
    PROBLEM,
    STATUS,
    UNKNOWN,
    WELL,
    but,
    commands,
    named,
    severities,
)

GONE = Starting(
    SET_UP, "/unit", hindered="it cannot start: its interpreter /opt/old/python is gone"
)


def patient_of(config: Config) -> Patient:
    return replace(WELL, config=config)


needs_table = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its sockets")


@needs_table
def test_a_helper_that_listens_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    path = f"{tmp_path}/h.sock"
    with listening(path) as listener:
        assert path in listeners("/proc/net/unix")
        assert look_at_helper(path) is Listening.YES
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()  # nobody has called


@needs_table
@pytest.mark.parametrize("end", ["\n", "\r"])
def test_the_name_of_somebody_s_socket_hides_no_other(tmp_path: Path, end: str) -> None:
    with listening(f"{tmp_path}/a{end}b c"), listening(f"{tmp_path}/h.sock"):
        assert f"{tmp_path}/h.sock" in listeners("/proc/net/unix")


def test_where_the_kernel_does_not_tell_it_is_called(tmp_path: Path) -> None:
    with listening(f"{tmp_path}/h.sock"):
        assert look_at_helper(f"{tmp_path}/h.sock", table="/dev/null") is Listening.YES


def test_a_socket_that_nobody_serves_is_told_from_none(tmp_path: Path) -> None:
    path = f"{tmp_path}/h.sock"
    assert look_at_helper(path) is Listening.NOTHING
    with listening(path):
        pass
    assert look_at_helper(path) is Listening.SILENT
    (tmp_path / "file").write_text("")
    assert look_at_helper(f"{tmp_path}/file") is Listening.NO_SOCKET


@pytest.mark.skipif(ROOT, reason="root may call anybody")
def test_a_socket_of_another_user_is_no_answer(tmp_path: Path) -> None:
    with listening(f"{tmp_path}/h.sock"):
        os.chmod(f"{tmp_path}/h.sock", 0)
        with pytest.raises(PermissionError):
            look_at_helper(f"{tmp_path}/h.sock", table="/dev/null")


@pytest.mark.parametrize("text", ["", "Num Path\n", "Num\nrubbish\n", "Num\n1: 2 3 zz 5 6 7 /x\n"])
def test_a_table_that_is_not_understood_lists_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "unix").write_text(text)
    assert listeners(f"{tmp_path}/unix") == frozenset()


def test_a_service_that_runs_is_told_with_what_it_says(tmp_path: Path) -> None:
    config = Config(runtime_dir=f"{tmp_path}/watch")
    assert look(patient_of(config)).running is False
    with held(config.runtime_dir):
        now = time.time()
        status = ServiceStatus(os.getpid(), now, now, "repair", "/nix/store")
        write_status(config.runtime_dir, status)
        found = look(patient_of(config))
    assert (found.running, found.status, found.owns) == (True, status, ROOT)
    found = look(patient_of(config))
    assert (found.running, found.installed) == (False, True)
    write_status(config.runtime_dir, replace(status, ended=True))
    assert look(patient_of(config)).installed is os.path.lexists(DEFAULT_CONFIG)


def test_a_status_that_is_not_understood_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    assert look(patient_of(Config(runtime_dir=str(tmp_path)))).status is None


def test_an_audit_log_is_absent_or_verified(tmp_path: Path) -> None:
    assert look_at_audit(f"{tmp_path}/none/audit.jsonl") is None
    assert look_at_audit(f"{tmp_path}/audit.jsonl") is None
    (tmp_path / "audit.jsonl").write_text("rubbish\n")
    found = look_at_audit(f"{tmp_path}/audit.jsonl")
    assert isinstance(found, Verification)
    assert found.problem


@pytest.mark.skipif(ROOT, reason="root may read it")
def test_an_audit_log_that_may_not_be_seen_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0)
    with pytest.raises(PermissionError):
        look_at_audit(f"{tmp_path}/log/audit.jsonl")
    os.chmod(tmp_path / "log", 0o700)


@pytest.mark.parametrize(
    ("service", "severity"),
    [
        (IDLE, NOTE),
        (IDLE | {"installed": True}, PROBLEM),
        ({"running": Unknown("permission denied")}, UNKNOWN),
        ({"status": None}, UNKNOWN),
        ({"status": replace(STATUS, mode="report")}, NOTE),
        ({"status": replace(STATUS, problems={"nix": "silent"})}, PROBLEM),
        ({"status": replace(STATUS, stuck_count=2)}, PROBLEM),
        ({"status": replace(STATUS, updated=NOW - 3600)}, PROBLEM),
    ],
)
def test_a_service_is_well_or_not_or_not_needed(
    service: dict[str, object], severity: Severity
) -> None:
    assert named(but(WELL, Service, **service), "service").severity is severity


@pytest.mark.parametrize(
    "found", [Listening.NOTHING, Listening.NO_SOCKET, Listening.SILENT], ids=lambda one: one.name
)
def test_a_helper_that_is_missed_is_a_problem(found: Listening) -> None:
    patient = but(WELL, Service, helper=found)
    assert severities(patient, PROBLEM) == {"helper"}
    assert not patient[Service].guarded


def helpers(patient: Patient) -> list[Severity]:
    return [one.severity for one in diagnose(patient) if one.name == "helper"]


def test_a_helper_that_nobody_needs_is_not_missed() -> None:
    nowhere = but(WELL, Service, helper=Listening.NOTHING)
    assert helpers(but(nowhere, Service, owns=True)) == [OK]
    assert helpers(but(nowhere, Service, **IDLE)) == []
    reports = replace(STATUS, mode="report")
    assert helpers(but(nowhere, Service, status=reports)) == []


def test_what_the_service_reaches_need_not_be_reached_by_others() -> None:
    closed = but(WELL, Service, helper=Unknown("permission denied"))
    assert helpers(closed) == [OK]
    assert helpers(but(closed, Service, running=False)) == [UNKNOWN]


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
    assert named(but(WELL, Service, audit=audit), "audit-log").severity is severity


def test_in_a_sandbox_what_is_not_there_may_be_outside() -> None:
    patient = but(but(WELL, Installation, daemon=APART), Service, audit=None, **IDLE)
    assert {"audit-log", "service", "daemon"} <= severities(patient, UNKNOWN)


def test_a_wrong_configuration_is_a_problem() -> None:
    patient = replace(WELL, config_problem="/etc/storewarden/config.toml: unknown key 'x'")
    assert severities(patient, PROBLEM) == {"configuration"}


def test_setup_is_advised_only_where_it_can_work() -> None:
    patient = but(WELL, Service, helper=Listening.NOTHING)
    for changes in ({}, IDLE, {"running": False, "starting": GONE}):
        assert SET_UP in commands(but(patient, Service, **changes))
        bare = but(patient, Service, **(changes | {"starting": Starting(WATCH)}))
        assert WATCH in commands(replace(bare, systemd=False))
        assert SET_UP not in commands(replace(bare, systemd=False))


def test_a_service_that_was_stopped_is_to_be_started_and_its_log_to_be_read() -> None:
    found = named(but(WELL, Service, running=False), "service")
    assert [step.command for step in found.steps] == [
        "sudo systemctl start storewarden",
        "sudo journalctl -u storewarden -n 30",
    ]


def test_a_service_whose_interpreter_is_gone_is_to_be_set_up_again() -> None:
    found = named(but(WELL, Service, running=False, starting=GONE), "service")
    assert "its interpreter /opt/old/python is gone" in found.why
    assert [step.command for step in found.steps] == [SET_UP]


def test_a_service_of_another_version_than_this_program_is_told() -> None:
    found = named(but(WELL, Service, other="the service runs another"), "own-version")
    assert (found.severity, found.title) == (NOTE, "Of two versions: the service runs another")
    assert [step.command for step in found.steps] == [SET_UP]


@pytest.mark.parametrize("system", ["NixOS", "nix-darwin"])
def test_what_setup_left_where_a_module_does_its_work_is_to_be_taken_away(system: str) -> None:
    patient = but(WELL, Service, left=True)
    assert "setup" not in {one.name for one in diagnose(patient)}
    found = named(replace(patient, declared=system), "setup")
    assert system in found.title
    assert [step.command for step in found.steps] == ["sudo storewarden setup --uninstall"]
