# SPDX-License-Identifier: MIT
"""The units as they are shipped: what must stand in them, and what systemd says of them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from programs import program
from storewarden.setup.code import all_shipped, shipped

WATCHER, SOCKET, HELPER = (
    "storewarden.service",
    "storewarden-helper.socket",
    "storewarden-helper.service",
)
UNITS = (WATCHER, SOCKET, HELPER)
Settings = dict[str, list[str]]


def settings(name: str) -> Settings:
    """Every value of every key, in order; a key that is set again has both."""
    found: Settings = {}
    for line in shipped(f"systemd/{name}").decode("ascii").splitlines():
        if line and line[0] not in "#;[":
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(key, []).append(value)
    return found


def test_the_watcher_has_no_privilege_at_all() -> None:
    found = settings(WATCHER)
    assert found["User"] == ["storewarden"]
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert found["NoNewPrivileges"] == ["yes"]
    assert "ReadWritePaths" not in found


def test_the_helper_has_two_privileges_and_two_places_to_write_to() -> None:
    found = settings(HELPER)
    assert found["CapabilityBoundingSet"] == ["CAP_DAC_OVERRIDE CAP_FOWNER"]
    assert found["AmbientCapabilities"] == [""]
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert found["ReadWritePaths"] == ["-/run/storewarden/nix/store -/nix/var/nix"]
    assert "DynamicUser" not in found


@pytest.mark.parametrize("unit", [WATCHER, HELPER])
def test_what_would_make_a_living_process_look_dead_is_not_set(unit: str) -> None:
    found = settings(unit)
    assert found["ProtectProc"] == ["default"]
    assert found["ProcSubset"] == ["all"]
    assert "PrivateUsers" not in found
    assert "PrivatePIDs" not in found


def test_only_the_watchers_user_reaches_the_socket() -> None:
    found = settings(SOCKET)
    assert found["SocketUser"] == settings(WATCHER)["User"]
    assert found["SocketMode"] == ["0600"]
    assert found["Accept"] == ["no"]
    assert f"--allow-user {found['SocketUser'][0]} " in settings(HELPER)["ExecStart"][0]


@pytest.mark.parametrize("unit", [WATCHER, HELPER])
def test_python_runs_isolated(unit: str) -> None:
    [command] = settings(unit)["ExecStart"]
    assert command.startswith("/usr/bin/python3 -I -m storewarden")


def test_the_helper_that_gives_up_more_privileges_runs_the_same_command() -> None:
    first, second = settings("drop-ins/storewarden-helper-store-remount.conf")["ExecStart"]
    assert first == ""
    assert second.endswith(f" {settings(HELPER)['ExecStart'][0]}")
    assert "--bounding-set=-all,+dac_override,+fowner --inh-caps=-all" in second


def test_every_drop_in_is_one_that_setup_can_choose() -> None:
    source = Path(os.path.dirname(__file__), "../src/storewarden/setup/linux.py")
    if not source.exists():
        pytest.skip("the source is not here")
    text = source.read_text(encoding="ascii")
    for name in all_shipped():
        if match := re.fullmatch(r"systemd/drop-ins/(.+)\.conf", name):
            assert f'"{match[1]}"' in text


@pytest.fixture
def unit_files(tmp_path: Path) -> Path:
    program("systemd-analyze", "systemd")
    for unit in UNITS:
        text = shipped(f"systemd/{unit}").decode("ascii")
        # Whether a program is there is this machine's matter.
        (tmp_path / unit).write_text(text.replace("/usr/bin/python3", shutil.which("true") or ""))
    return tmp_path


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    command = ["systemd-analyze", "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_systemd_finds_nothing_wrong_with_them(unit_files: Path) -> None:
    done = analyze("verify", "--man=no", *(str(unit_files / unit) for unit in UNITS))
    said = [line for line in done.stderr.splitlines() if "storewarden" in line]
    if done.returncode != 0 and not said:
        pytest.skip(f"systemd-analyze verify does not work here: {done.stderr.strip()}")
    assert said == []


@pytest.mark.parametrize(("unit", "tenths"), [(WATCHER, 10), (HELPER, 15)])
def test_systemd_finds_them_hardly_exposed(unit: str, tenths: int, unit_files: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={tenths}", str(unit_files / unit))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at no files")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout
