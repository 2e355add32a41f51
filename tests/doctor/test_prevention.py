# SPDX-License-Identifier: MIT
"""The hook, as the doctor sees it: there, root's alone, quick, quiet, and followed by the other."""

import os
from pathlib import Path

import pytest

from storewarden.doctor.patient import Severity
from storewarden.doctor.prevention import Hook, look_at
from storewarden.prevention import hook_text
from well import WELL, but, named, severities

OURS = "/etc/storewarden/pre-build-hook"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a hook is root's")


@pytest.mark.parametrize(
    ("changes", "severity", "said"),
    [
        ({"bad": f"{OURS} cannot be read (gone)"}, Severity.PROBLEM, "cannot be read"),
        ({"bad": "others than root can change /etc"}, Severity.PROBLEM, "is not safe"),
        ({"ours": False, "bad": f"{OURS} is gone"}, Severity.PROBLEM, "is not safe"),
        ({"wrong": "it ended with status 1"}, Severity.PROBLEM, "ended with status 1"),
        ({"took": 1.2}, Severity.PROBLEM, "it takes 1.2 s"),
        ({"ours": False, "path": "/mine"}, Severity.NOTE, "runs /mine instead"),
        ({"ours": False, "path": ""}, Severity.NOTE, "has not read it"),
        ({"other": ("/etc/nix/nix.conf", "/mine")}, Severity.NOTE, "sets /mine"),
        ({"then": "/mine"}, Severity.NOTE, "after ours /mine is run"),
        ({"then": "/m", "other": ("/etc/nix/nix.conf", "/m")}, Severity.OK, "(20 ms, then /m)"),
        ({}, Severity.OK, "(20 ms)"),
    ],
)
def test_what_is_said_of_a_hook(changes: dict[str, object], severity: Severity, said: str) -> None:
    found = named(but(WELL, Hook, **changes), "prevention")
    assert found.severity is severity
    assert said in found.title
    assert bool(found.steps) is (severity is not Severity.OK)


@pytest.mark.parametrize("path", ["", "/somebody/elses"])
def test_where_it_was_not_asked_for_nothing_is_said(path: str) -> None:
    patient = WELL.having(Hook(path, included=False))
    assert not any("prevention" in severities(patient, one) for one in Severity)


def hook(place: Path, text: str) -> Hook:
    file = place / "hook"
    file.write_text(text)
    file.chmod(0o755)
    return look_at(str(file), included=True)


@needs_root
def test_one_that_is_right_is_found_so(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)  # noqa: S103 - as /etc is
    for other in (None, ("/etc/nix/nix.conf", "/bin/false")):
        seen = hook(tmp_path, hook_text("/nonexistent", "/nonexistent", "/nonexistent", other))
        assert (seen.ours, seen.bad, seen.wrong) == (True, "", "")
        assert seen.then == (other or ("", ""))[1]
        assert 0 < seen.took < 5


@needs_root
def test_one_that_fails_builds_or_is_not_roots_alone_is_found_out(tmp_path: Path) -> None:
    ours = "# /helper/before_build.py"
    assert hook(tmp_path, f"#!/bin/sh\n{ours}\nexit 3\n").wrong == "it ended with status 3"
    assert hook(tmp_path, f"#!/bin/sh\n{ours}\necho no\n").wrong == "it printed something"
    assert not hook(tmp_path, "#!/bin/sh\n").ours
    assert "cannot be read" in look_at(f"{tmp_path}/gone", included=True).bad
    os.chown(tmp_path, 65534, -1)
    assert hook(tmp_path, ours).bad == f"others than root can change {tmp_path}"
