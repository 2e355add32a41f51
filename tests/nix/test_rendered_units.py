# SPDX-License-Identifier: MIT
"""What systemd says of the units that the module renders, next to those that are shipped."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nix.evaluating import Nix
from nix.rendered import UNITS, Rendered, render, shipped_with
from programs import program

SERVICES = (UNITS[0], UNITS[2])
REMOUNTED = 'fileSystems."/nix/store".device = "tank/store";'
EVERY_OPTION = """
  boot.isContainer = true;
  services.storewarden.extraArgs = [ "--min-age" "60" ];
  services.storewarden.logLevel = "err";
  services.storewarden.settings.metrics-listen = "127.0.0.1:9913";
"""


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [program("systemd-analyze", "systemd"), "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def exposure(unit: str) -> float:
    """From 0, the best, to 10; drop-ins that lie beside the unit count."""
    done = analyze("security", "--offline=true", unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at no files")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def shipped_units(place: Path, *drop_ins: str) -> Path:
    """The shipped files in one directory, as an administrator has them."""
    for unit in UNITS:
        (place / unit).write_text(shipped_with("/bin/true", unit), encoding="ascii")
    for name in drop_ins:
        unit = UNITS[2] if name.startswith("storewarden-helper-") else UNITS[0]
        (place / f"{unit}.d").mkdir(exist_ok=True)
        text = shipped_with("/bin/true", f"drop-ins/{name}")
        (place / f"{unit}.d" / name).write_text(text, encoding="ascii")
    return place


@pytest.mark.parametrize("options", ["", EVERY_OPTION], ids=["plain", "with every option"])
def test_systemd_finds_nothing_wrong_with_them(nix: Nix, tmp_path: Path, options: str) -> None:
    # It looks at what lies beside them as well, and follows no link out of a store.
    place = shutil.copytree(f"{render(nix, options).top}/systemd/system", tmp_path / "units")
    done = analyze("verify", "--man=no", *(str(place / unit) for unit in UNITS))
    # A key that this systemd is too old for, or that only NixOS reads, is no fault of theirs.
    ignored = ("Failed to parse service type, ignoring: notify-reload", "X-Reload-Triggers")
    said = [line for line in done.stderr.splitlines() if "storewarden" in line]
    if done.returncode != 0 and not said:
        pytest.skip(f"systemd-analyze verify does not work here: {done.stderr.strip()}")
    assert [line for line in said if not any(one in line for one in ignored)] == []


@pytest.mark.parametrize("unit", SERVICES)
def test_they_are_as_little_exposed_as_those_that_are_shipped(
    plain: Rendered, tmp_path: Path, unit: str
) -> None:
    place = shipped_units(tmp_path)
    assert exposure(f"{plain.top}/systemd/system/{unit}") == exposure(str(place / unit))


def test_a_helper_that_remounts_is_as_little_exposed_as_the_shipped_one(
    nix: Nix, tmp_path: Path
) -> None:
    one = render(nix, REMOUNTED)
    place = shipped_units(tmp_path, "storewarden-helper-store-remount.conf")
    remounted = exposure(f"{one.top}/systemd/system/{UNITS[2]}")
    assert remounted == exposure(str(place / UNITS[2]))
    assert remounted > exposure(f"{render(nix).top}/systemd/system/{UNITS[2]}")
