# SPDX-License-Identifier: MIT
"""All checks together, also as on macOS, which no test runs on; and what a new one has to be."""

import builtins
import dis
import os
from dataclasses import replace
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

import pytest

import storewarden.doctor
from documents import ROOT, read
from storewarden.doctor import CHECKS, blind, diagnose, nix, service
from storewarden.doctor.bugs import Emulation
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Patient, Severity, Unknown
from storewarden.doctor.service import Listening, Service
from storewarden.doctor.store import Database, Storage
from storewarden.doctor.users import Accounts, Users
from storewarden.nix_queries import Flavour, NixVersion
from storewarden.store.store import Fact, Known
from well import (
    IDLE,
    MAC,
    NOW,
    OK,
    PROBLEM,
    STRANDING,
    WELL,
    but,
    commands,
    severities,
    with_conf,
    with_settings,
    with_version,
)

PURE = {"builtins", "dataclasses", "pathlib", "shlex"} | {
    f"storewarden.{name}" for name in ("readable",)
}
"""Modules besides the doctor's own, of which a judgement may call what it likes."""


def globals_of(code: CodeType) -> set[str]:
    """The globals that it uses, and those that what is defined in it uses."""
    inner = (globals_of(one) for one in code.co_consts if isinstance(one, CodeType))
    own = (one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL")
    return set(own).union(*inner)


def eyes(module: ModuleType, name: str) -> set[str]:
    """With what that function of a check, and what of the doctor's it calls, could look."""
    return _eyes(vars(module)[name], set())


def _eyes(function: FunctionType, seen: set[FunctionType]) -> set[str]:
    seen.add(function)
    found = set()
    for name in globals_of(function.__code__):
        used = function.__globals__.get(name, getattr(builtins, name, None))
        module = used.__name__ if isinstance(used, ModuleType) else getattr(used, "__module__", "")
        ours = str(module).startswith("storewarden.")
        match used:
            case FunctionType() if module.startswith("storewarden.doctor."):
                found |= set() if used in seen else _eyes(used, seen)
            case ModuleType() | FunctionType() | BuiltinFunctionType() if module not in PURE:
                found.add(name)
            case type() if not ours and module not in PURE:
                found.add(name)
    return found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.rpartition(".")[2])
def test_a_judgement_looks_at_nothing(check: ModuleType) -> None:
    used = eyes(check, "judge")
    assert not used, (
        f"judge of {check.__name__} may look at something, with {used}: look is for that"
    )


def test_what_can_look_at_something_is_seen() -> None:
    assert {"nix_queries", "host"} <= eyes(nix, "look")
    assert {"os", "open", "threading"} <= eyes(nix, "look")
    assert "socket" in eyes(service, "look")


def test_every_file_with_a_judgement_is_in_the_list_of_checks() -> None:
    [place] = storewarden.doctor.__path__
    files = {path.stem for path in Path(place).glob("*.py") if "\ndef judge(" in path.read_text()}
    listed = {vars(check)["__name__"].rpartition(".")[2] for check in CHECKS}
    assert files == listed, "CHECKS in doctor/__init__.py and the files differ"


OLD = NixVersion(Flavour.NIX, (2, 8, 0), "2.8.0")
ODD = Accounts(
    "nixbld",
    exists=True,
    members=(("_nixbld1", 301),),
    shared=(("_nixbld1", "_modelmanagerd"),),
    logins=("_nixbld1",),
)
BAD = with_settings(with_version(WELL, OLD), replace(STRANDING, build_group="others"))
BAD = with_conf(but(but(BAD, Users, accounts=ODD), Service, **IDLE), changed=NOW)
BAD_MACHINES = (
    replace(BAD, darwin=True, systemd=False),
    but(BAD, Emulation, gvisor=True),
)


@pytest.mark.parametrize("patient", BAD_MACHINES, ids=["macOS", "gVisor"])
def test_no_name_stands_twice_however_bad_it_is(patient: Patient) -> None:
    names = [one.name for one in diagnose(patient)]
    assert sorted(set(names)) == sorted(names)
    assert {"uid-clash", "logins", "build-group"} <= set(names)


@pytest.mark.skipif(not os.path.exists(f"{ROOT}/docs"), reason="the documents are in the checkout")
def test_every_diagnosis_stands_in_the_documents() -> None:
    text = read("docs/doctor.md")
    for one in [one for patient in (WELL, *BAD_MACHINES) for one in diagnose(patient)]:
        stem = f"{one.name.partition('-')[0]}-…"
        missing = f"docs/doctor.md does not say what {one.name} is"
        assert f"`{one.name}`" in text or f"`{stem}`" in text, missing


def test_of_a_machine_that_is_well_there_is_nothing_but_that() -> None:
    assert {one.severity for one in diagnose(WELL)} == {OK}
    assert not blind(WELL)


def test_the_worst_comes_first() -> None:
    found = [one.severity for one in diagnose(with_settings(WELL, STRANDING))]
    assert found == sorted(found, key=list(Severity).index)


@pytest.mark.parametrize(
    "patient",
    [
        but(WELL, Installation, daemon=Unknown("permission denied")),
        but(WELL, Installation, answers=Fact(Known.NO, "it hangs")),
        but(WELL, Installation, version=Unknown("no such file or directory")),
        but(WELL, Storage, listed=Known.NO),
        but(WELL, Storage, listed=Known.UNKNOWN),
        but(WELL, Storage, database=Database(broken="it is no database")),
    ],
)
def test_where_nix_or_the_store_cannot_be_asked_that_is_a_problem_and_little_else(
    patient: Patient,
) -> None:
    assert blind(patient)
    assert severities(patient, PROBLEM)


@pytest.mark.parametrize("system", ["NixOS", "nix-darwin"])
def test_on_a_declared_machine_all_is_to_be_declared(system: str) -> None:
    patient = with_settings(WELL, replace(STRANDING, build_group="others"))
    patient = replace(patient, declared=system)
    for changes in (IDLE, IDLE | {"installed": True}, {"running": False}):
        one = but(patient, Service, **changes, helper=Listening.NOTHING)
        assert not [text for text in commands(one) if "setup" in text or "systemctl edit" in text]
        steps = " ".join(step.words for found in diagnose(one) for step in found.steps)
        assert f"In the configuration of {system}: services.storewarden." in steps
        assert f"Set sandbox = true in nix.settings of {system}" in steps
        assert "nix.conf" not in steps


def test_no_command_for_linux_is_given_on_macos() -> None:
    patient = but(with_settings(MAC, STRANDING), Service, **IDLE)
    patient = with_conf(patient, changed=NOW)
    assert "systemctl" not in " ".join(commands(patient))
    assert any("launchctl" in command for command in commands(patient))


@pytest.mark.parametrize(
    ("flavour", "label"),
    [
        (Flavour.NIX, "org.nixos.nix-daemon"),
        (Flavour.LIX, "org.nixos.nix-daemon"),
        (Flavour.DETERMINATE, "systems.determinate.nix-daemon"),
    ],
)
def test_the_daemon_of_a_mac_is_restarted_by_the_label_its_installer_gave_it(
    flavour: Flavour, label: str
) -> None:
    patient = with_version(MAC, NixVersion(flavour, (2, 34, 6), "of someone's"))
    patient = with_conf(patient, changed=NOW)
    restarts = [one for one in commands(patient) if "kickstart" in one]
    assert set(restarts) == {f"sudo launchctl kickstart -k system/{label}"}
