# SPDX-License-Identifier: MIT
"""The command in /usr/local/bin, where it cannot be put: all else is set up, and taken back."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from json_documents import checked
from staging import MANIFEST, UNITS, USER, WATCHER, run, set_up, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS asks who called sudo")

BIN = "usr/local/bin"
LAUNCHER = f"{BIN}/storewarden"
MINE = "#!/bin/sh\nexec /home/me/venv/bin/storewarden\n"


def made(top: str) -> None:
    """As a system has it, for the user of this test to have set up in."""
    os.makedirs(f"{top}/{BIN}", 0o755)
    for place in ("usr", "usr/local", BIN):
        os.chown(f"{top}/{place}", USER, -1)


def _loose(top: str) -> None:
    os.chmod(f"{top}/{BIN}", 0o2775)  # noqa: S103 - the point of the test


def _anothers(top: str) -> None:
    Path(top, LAUNCHER).write_text(MINE)


def _a_link(top: str) -> None:
    os.symlink("/home/me/venv/bin/storewarden", f"{top}/{LAUNCHER}")


def _a_directory(top: str) -> None:
    os.mkdir(f"{top}/{LAUNCHER}")


def _a_link_on_the_way(top: str) -> None:
    os.rename(f"{top}/{BIN}", f"{top}/usr/local/sbin")
    os.symlink("sbin", f"{top}/{BIN}")


WAYS = (_loose, _anothers, _a_link, _a_directory, _a_link_on_the_way)


def ended(top: str) -> bool:
    """Whether the run that wrote the manifest came to its end."""
    return json.loads(Path(top, MANIFEST).read_text())["ended"] is True


@pytest.mark.parametrize("spoil", WAYS)
def test_where_it_cannot_be_put_all_else_is_set_up_and_taken_back(
    spoil: Callable[[str], None], python: str, top: str
) -> None:
    made(top)
    spoil(top)
    before = tree(top)
    said = set_up(python, top)
    [code] = os.listdir(f"{top}/opt/storewarden")
    [line] = [line for line in said.splitlines() if line.startswith("keep ")]
    assert line.startswith(f"keep    /{LAUNCHER}: ")
    assert line.endswith(f"; what is set up: /opt/storewarden/{code}/bin/python -I -m storewarden")
    assert os.path.exists(f"{top}/{WATCHER}")
    assert ended(top)
    assert set_up(python, top) == (f"{line}\nnothing to change: everything is as it should be\n")
    set_up(python, top, "--uninstall")
    assert tree(top) == before


@pytest.mark.parametrize("spoil", [_loose, _anothers])
def test_one_that_was_put_there_and_cannot_be_changed_any_more_is_kept(
    spoil: Callable[[str], None], python: str, top: str
) -> None:
    made(top)
    set_up(python, top)
    spoil(top)
    content = Path(top, LAUNCHER).read_bytes()
    for _ in range(2):
        said = set_up(python, top)
        assert said.count("keep ") == 1
        assert f"keep    /{LAUNCHER}: " in said
        assert ended(top)
    assert f"keep    /{LAUNCHER}: " in set_up(python, top, "--uninstall")
    assert Path(top, LAUNCHER).read_bytes() == content
    assert not os.path.exists(f"{top}/{UNITS}")


def test_once_the_place_is_mended_the_command_comes(python: str, top: str) -> None:
    made(top)
    _loose(top)
    set_up(python, top)
    os.chmod(f"{top}/{BIN}", 0o755)  # noqa: S103 - as the directories of the system
    assert f"write   /{LAUNCHER} (new)\n" in set_up(python, top)
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"


def test_a_run_that_an_older_version_did_not_end_is_ended(python: str, top: str) -> None:
    made(top)
    _anothers(top)
    set_up(python, top)
    manifest = json.loads(Path(top, MANIFEST).read_text())
    Path(top, MANIFEST).write_text(json.dumps({**manifest, "ended": False}))
    set_up(python, top)
    assert ended(top)


def test_a_dry_run_tells_it_beforehand(python: str, top: str) -> None:
    made(top)
    _loose(top)
    shown = checked(run(python, top, "--dry-run", "--json").stdout, "setup")
    [keep] = [step for step in shown["steps"] if step["do"] == "keep"]
    assert keep["path"] == f"/{LAUNCHER}"
    assert "others than root can change it" in keep["why"]
