# SPDX-License-Identifier: MIT
"""`storewarden doctor` on real Nix whose nix.conf is closed to some, or broken."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from real.doctoring import visited
from real.rig import Rig
from real.test_doctor import edited


@contextlib.contextmanager
def closed(rig: Rig, name: str) -> Iterator[None]:
    """While only root may read that file of its /etc."""
    os.chmod(f"{rig.base}/etc/{name}", 0o600)
    yield
    os.chmod(f"{rig.base}/etc/{name}", 0o644)


@pytest.mark.parametrize("line", ["nonsense", "cores = many", "include /nowhere"])
def test_a_configuration_that_nix_does_not_take_is_to_be_mended(rig: Rig, line: str) -> None:
    with edited(rig, "nix/nix.conf", "substituters", f"{line}\nsubstituters"):
        visit = visited(rig, user="nobody")
    assert (visit.code, visit.severity("nix")) == (3, "problem")
    assert "Nix does not run with its configuration: nix: error: " in visit.said("nix")
    assert line.rsplit(maxsplit=1)[-1] in visit.said("nix")
    assert "install Nix" not in visit.said("nix")
    assert visit.severity("daemon") == "unknown"
    assert "Restart" not in visit.said("daemon")
    assert visited(rig).severity("daemon") == "ok"  # it has been at work all the time


@pytest.mark.parametrize("named", ["nix.conf", "tokens"])
def test_settings_in_a_file_that_only_root_may_read_are_told_to_root_alone(
    rig: Rig, named: str
) -> None:
    """Nix says nothing of it, and shows its defaults: `sandbox = true` where there is none."""
    place = f"{rig.base}/etc/nix/{named}"
    with (
        edited(rig, "nix/nix.conf", "substituters", "!include tokens\nsubstituters"),
        open(place, "a", encoding="utf-8"),
        closed(rig, f"nix/{named}"),
    ):
        visit = visited(rig, user="nobody")
        assert visited(rig).severity("content-addressed") == "problem"
    assert (visit.code, visit.severity("settings")) == (0, "unknown")
    assert f"This user may not read /etc/nix/{named}" in visit.said("settings")
    assert "sudo storewarden doctor" in visit.said("settings")
    assert not {"sandbox", "content-addressed", "build-users"} & set(visit.found)
