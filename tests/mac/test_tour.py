# SPDX-License-Identifier: MIT
"""`make mac`, which somebody with a Mac is to run: on the stand-in nothing of it is odd."""

import os
import sys
from pathlib import Path

import pytest

from mac import installed as service
from mac import tour
from mac.machine import Mac
from mac.root import OWN_CHECKOUT

DOCUMENT = Path(tour.CHECKOUT, "docs", "macos.md")


@pytest.mark.slow
def test_all_its_steps_are_as_expected_and_it_leaves_nothing_but_its_report(mac: Mac) -> None:
    before = service.files(mac)
    make = f"cd {OWN_CHECKOUT} && make mac TOUR='--yes --tests tests/host'"
    done = mac.run("sh", "-c", make, seconds=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n0 not as expected" in done.stdout
    for step in (*tour.LOOKING, *tour.CHANGING):
        assert f"\n{step.__name__}\n  proves: {step.__doc__}\n" in done.stdout
    with open(mac.outside(f"{OWN_CHECKOUT}/{Path(tour.REPORT).name}"), encoding="utf-8") as file:
        report = file.read()
    assert set(done.stdout.splitlines()) <= set(report.splitlines())
    assert "    $ sudo " in report
    left = {path for path in service.files(mac).keys() - before.keys() if path[:5] != "/nix/"}
    others = {path for path in left if not path.startswith((service.AUDIT_LOG, OWN_CHECKOUT))}
    assert others <= {"/Users/you/Library/Logs/storewarden.log"}


# Of each some look at what only Linux has; the first binds sockets.
TESTS = ["tests/doctor/test_service.py", "tests/helper/test_engine.py"]
TESTS += ["tests/helper/test_hold_witness.py"]


@pytest.mark.slow
def test_tests_run_where_macos_has_its_temporary_files_and_say_which_are_linux_own(
    mac: Mac,
) -> None:
    place = "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T"
    os.makedirs(mac.outside(place))
    os.chmod(mac.outside(place), 0o1777)  # noqa: S103 - as anybody's
    python = [f"{OWN_CHECKOUT}/.venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = mac.run("env", "-C", OWN_CHECKOUT, f"TMPDIR={place}/", *python, *TESTS, seconds=250)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="there is one, and it would begin")
def test_it_begins_nothing_where_there_is_no_mac(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="make mac is for a Mac"):
        tour.main([])
    assert capsys.readouterr().out == ""


def test_the_document_names_every_step_in_order() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    steps = [f"| `{step.__name__}` | {step.__doc__} |" for step in (*tour.LOOKING, *tour.CHANGING)]
    assert [row for row in rows if row in steps] == steps
