# SPDX-License-Identifier: MIT
"""Whether a sandbox can be made, told by a /proc that is written for it; and what that means."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from storewarden.doctor.builds import Building, namespaces, recorded_outputs
from storewarden.doctor.patient import Severity, Unknown
from storewarden.doctor.service import Service
from storewarden.nix_queries import Flavour, NixVersion, Settings
from storewarden.store.store import Known
from storewarden.throwaway import ThrowawayStore
from well import (
    IDLE,
    MAC,
    NOTE,
    OK,
    PROBLEM,
    STATUS,
    STRANDING,
    UNKNOWN,
    WELL,
    but,
    named,
    with_settings,
    with_version,
)

ALL, NONE = "000001ffffffffff", "0000000000000000"


def write_proc(directory: Path, status: str, most: str | None, kinds: str = "mnt pid user") -> str:
    """A /proc with one process, and with those kinds of namespaces."""
    (directory / "self/ns").mkdir(parents=True)
    (directory / "sys/user").mkdir(parents=True)
    (directory / "self/status").write_text(status)
    for kind in kinds.split():
        (directory / "self/ns" / kind).write_text("")
    if most is not None:
        (directory / "sys/user/max_user_namespaces").write_text(most)
    return str(directory)


@pytest.mark.parametrize(
    ("status", "most", "known"),
    [
        (f"CapBnd:\t{ALL}\nSeccomp:\t0\n", "100", Known.YES),
        (f"CapBnd:\t{ALL}\n", None, Known.YES),
        (f"CapBnd:\t{ALL}\nSeccomp:\t2\n", "100", Known.UNKNOWN),
        (f"CapBnd:\t{NONE}\nSeccomp:\t0\n", "100", Known.UNKNOWN),
        (f"CapBnd:\t{NONE}\nSeccomp:\t0\n", "0\n", Known.NO),
        (f"CapBnd:\t{NONE}\n", None, Known.UNKNOWN),
        ("CapBnd:\tx\n", "0", Known.UNKNOWN),
        ("Name:\tcat\n", "0", Known.UNKNOWN),
    ],
)
def test_they_may_be_made_or_not_or_that_cannot_be_told(
    tmp_path: Path, status: str, most: str | None, known: Known
) -> None:
    assert namespaces(write_proc(tmp_path, status, most)) is known


def test_a_kernel_without_user_namespaces_leaves_only_the_capability(tmp_path: Path) -> None:
    proc = write_proc(tmp_path, f"CapBnd:\t{NONE}\n", None, kinds="mnt pid")
    assert namespaces(proc) is Known.NO


def test_a_kernel_without_mount_namespaces_makes_no_sandbox(tmp_path: Path) -> None:
    proc = write_proc(tmp_path, f"CapBnd:\t{ALL}\n", "100", kinds="user")
    assert namespaces(proc) is Known.NO


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert namespaces(f"{tmp_path}/none") is Known.UNKNOWN


def execute(place: ThrowawayStore, script: str) -> None:
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as database:
        database.executescript(script)


@pytest.mark.parametrize("table", ["Realisations", "BuildTraceV3"])
def test_recorded_outputs_are_counted_in_either_table(place: ThrowawayStore, table: str) -> None:
    execute(place, f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id INTEGER)")
    assert recorded_outputs(place.state_dir, place.store_dir) == 0
    execute(place, f"INSERT INTO {table} VALUES (1), (2)")  # noqa: S608 - the test's own name
    assert recorded_outputs(place.state_dir, place.store_dir) == 2


def set_to(sandbox: str | None, **more: bool) -> Settings:
    return replace(Settings(sandbox=sandbox, features=frozenset()), **more)  # type: ignore[arg-type]


FALLS, FAILS = {"sandbox_fallback": True}, {"sandbox_fallback": False}


@pytest.mark.parametrize(
    ("settings", "namespaces", "severity"),
    [
        (set_to("true", **FALLS), Known.YES, OK),
        (set_to("true", **FAILS), Known.UNKNOWN, OK),
        (set_to("true", **FALLS), Known.UNKNOWN, UNKNOWN),
        (set_to("true"), Known.UNKNOWN, UNKNOWN),
        (set_to("true", **FALLS), Known.NO, PROBLEM),
        (set_to("true", **FAILS), Known.NO, PROBLEM),
        (set_to("relaxed", **FALLS), Known.YES, NOTE),
        (set_to("relaxed", **FALLS), Known.NO, PROBLEM),
        (set_to("false", **FALLS), Known.YES, NOTE),
        (set_to(None), Known.YES, UNKNOWN),
    ],
)
def test_a_sandbox_is_what_can_be_made_and_not_what_is_set(
    settings: Settings, namespaces: Known, severity: Severity
) -> None:
    patient = but(with_settings(WELL, settings), Building, namespaces=namespaces)
    assert named(patient, "sandbox").severity is severity


@pytest.mark.parametrize("sandbox", ["true", "false", "relaxed"])
def test_on_macos_no_setting_keeps_outputs_out_of_the_store(sandbox: str) -> None:
    found = named(with_settings(MAC, replace(STRANDING, sandbox=sandbox)), "sandbox")
    assert found.severity is NOTE
    assert "on macOS builds write their outputs into the store either way" in found.title
    patient = with_settings(MAC, replace(STRANDING, sandbox=sandbox))
    assert named(but(patient, Service, **IDLE), "content-addressed").severity is PROBLEM


def test_what_strands_is_a_problem_unless_a_service_removes_it() -> None:
    patient = with_settings(WELL, STRANDING)
    assert named(patient, "content-addressed").severity is NOTE
    services: tuple[dict[str, object], ...] = (
        IDLE,
        {"status": replace(STATUS, mode="report")},
        {"status": replace(STATUS, problems={"nix": "it is silent"})},
        {"running": Unknown("it may not be asked")},
    )
    for service in services:
        found = named(but(patient, Service, **service), "content-addressed")
        assert found.severity is PROBLEM
        assert "NixOS/nix#13703" in found.issues
    for count, said in ((1, "recorded 1 output so far"), (2, "recorded 2 outputs so far")):
        some = but(but(patient, Service, **IDLE), Building, recorded=count)
        assert said in named(some, "content-addressed").why


def test_with_a_sandbox_or_in_lix_nothing_is_stranded() -> None:
    sandboxed = replace(STRANDING, sandbox="true")
    assert named(with_settings(WELL, sandboxed), "content-addressed").severity is OK
    lix = NixVersion(Flavour.LIX, (2, 95, 0), "2.95.0")
    patient = with_version(with_settings(WELL, STRANDING), lix)
    assert named(but(patient, Service, **IDLE), "content-addressed").severity is OK


def test_recorded_outputs_tell_of_builds_with_the_feature_on() -> None:
    assert named(WELL, "content-addressed").severity is OK
    patient = but(WELL, Building, recorded=3)
    assert named(patient, "content-addressed").severity is NOTE
