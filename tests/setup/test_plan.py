# SPDX-License-Identifier: MIT
"""The steps of a setup: what is stale, and commands that take their time."""

import os
from pathlib import Path

import pytest

from stand_in import write_program
from storewarden.setup.files import Manifest, SetupError, settled
from storewarden.setup.plan import RunCommand, run_command, stale

BUSY = """\
echo . >>{tries}
[ $(wc -l <{tries}) -lt {enough} ] || exit 0
echo 'Bootstrap failed: 5: Input/output error' >&2
echo 'Try re-running the command as root for richer errors.' >&2
exit 5
"""


def command(directory: Path, enough: int) -> tuple[str, Path]:
    """A program that fails with 5 until it has been run so often."""
    tries = directory / "tries"
    text = BUSY.format(tries=tries, enough=enough)
    return write_program(f"{directory}/launchctl", text), tries


def test_a_label_that_is_still_there_is_tried_again(tmp_path: Path) -> None:
    program, tries = command(tmp_path, enough=3)
    run_command(RunCommand([program, "bootstrap"], again=(5,), tries=4))
    assert len(tries.read_text().splitlines()) == 3


def test_it_is_not_tried_for_ever_and_all_that_it_said_is_told(tmp_path: Path) -> None:
    program, tries = command(tmp_path, enough=9)
    with pytest.raises(SetupError) as raised:
        run_command(RunCommand([program, "bootstrap"], again=(5,), tries=2))
    assert str(raised.value) == (
        f"`{program} bootstrap` failed (5): Bootstrap failed: 5: Input/output error;"
        " Try re-running the command as root for richer errors."
    )
    assert len(tries.read_text().splitlines()) == 2


def test_another_failure_is_the_end_at_once(tmp_path: Path) -> None:
    program, tries = command(tmp_path, enough=9)
    with pytest.raises(SetupError):
        run_command(RunCommand([program], again=(36,), tries=5))
    assert len(tries.read_text().splitlines()) == 1


def test_a_status_other_than_0_can_say_that_all_is_well(tmp_path: Path) -> None:
    """So ends `launchctl bootout`: 0 says that it has begun, 3 that the job is gone."""
    program, tries = command(tmp_path, enough=9)
    run_command(RunCommand([program], well=(5,), again=(0,), tries=5))
    assert len(tries.read_text().splitlines()) == 1


def test_a_directory_made_behind_a_link_is_not_stale_while_something_lies_in_it(
    tmp_path: Path,
) -> None:
    """/etc is a link to private/etc on macOS."""
    real = tmp_path.resolve()
    os.makedirs(real / "private/etc")
    os.symlink("private/etc", real / "etc")
    wanted = f"{real}/etc/storewarden/config.toml"
    assert settled(wanted, "") == f"{real}/private/etc/storewarden/config.toml"
    made = [f"{real}/private/etc/storewarden", f"{real}/private/etc/older"]
    left = stale({wanted}, Manifest(directories=tuple(made)), "")
    assert [step.path for step in left] == [f"{real}/private/etc/older"]
