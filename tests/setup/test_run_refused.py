# SPDX-License-Identifier: MIT
"""What setup does not do, and what becomes of a run that is cut off."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from staging import MANIFEST, UNITS, USER, WATCHER, interrupted_at, picture, run, set_up, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS asks who called sudo")


def test_what_others_put_there_stays_and_nothing_is_begun(python: str, top: str) -> None:
    set_up(python, top, "--uninstall")
    os.makedirs(f"{top}/{UNITS}", 0o755)
    Path(top, WATCHER).write_text("[Service]\nExecStart=/bin/true\n")
    before = picture(top)
    done = run(python, top)
    assert done.returncode == 3
    assert f"not written by setup, or changed since: /{WATCHER}" in done.stderr
    assert picture(top) == before


def test_a_unit_changed_by_hand_is_neither_replaced_nor_removed(python: str, top: str) -> None:
    set_up(python, top)
    with open(f"{top}/{WATCHER}", "a", encoding="ascii") as file:
        file.write("# mine\n")
    before = picture(top)
    assert run(python, top).returncode == 3
    assert picture(top) == before
    assert f"keep    /{WATCHER}: it was changed" in set_up(python, top, "--uninstall")
    assert {path for path, (mode, _) in tree(top).items() if mode & 0o100000} == {f"/{WATCHER}"}


@pytest.mark.parametrize("place", ["etc", "etc/systemd", UNITS, "opt", "opt/storewarden"])
def test_a_link_on_the_way_is_not_followed(place: str, python: str, top: str) -> None:
    elsewhere = f"{os.path.dirname(top)}/elsewhere"
    os.mkdir(elsewhere)
    os.chown(elsewhere, USER, -1)
    os.makedirs(os.path.dirname(f"{top}/{place}"), 0o755, exist_ok=True)
    os.symlink(elsewhere, f"{top}/{place}")
    done = run(python, top)
    assert done.returncode == 3
    assert "is a symbolic link" in done.stderr
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_nothing_is_written_where_others_can_write(mode: int, python: str, top: str) -> None:
    os.makedirs(f"{top}/{UNITS}")
    os.chmod(f"{top}/{UNITS}", mode)
    done = run(python, top)
    assert done.returncode == 3
    assert f"nothing is written below {top}/{UNITS}" in done.stderr
    assert os.listdir(f"{top}/{UNITS}") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "files": 3}'])
def test_a_manifest_that_is_not_understood_stops_it(text: str, python: str, top: str) -> None:
    set_up(python, top)
    Path(top, MANIFEST).write_text(text)
    before = picture(top)
    for more in ((), ("--uninstall",)):
        done = run(python, top, *more)
        assert done.returncode == 3
        assert MANIFEST in done.stderr
    assert picture(top) == before


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--uninstall",)], ids=["set-up", "taken-back"])
def test_killed_at_any_moment_the_next_run_completes_it(
    more: tuple[str, ...], python: str, top: str
) -> None:
    set_up(python, top)
    whole = tree(top)
    paths = sorted(json.loads(Path(top, MANIFEST).read_text())["files"])
    cut_off = 0
    for path in (f"/{MANIFEST}", *paths[:: len(paths) // 5]):
        if not more:
            set_up(python, top, "--uninstall")
        interrupted_at(python, top, path, signal.SIGKILL, *more)
        cut_off += tree(top) not in (whole, {})
        set_up(python, top, *more)
        # Cut off after the manifest has gone, a directory above it may stay.
        assert ({} if tree(top).keys() <= {"/etc"} else tree(top)) == ({} if more else whole)
        if more:
            set_up(python, top)
    assert cut_off > 3


def test_ctrl_c_says_how_to_go_on(python: str, top: str) -> None:
    said = interrupted_at(python, top, f"/{MANIFEST}", signal.SIGINT)
    assert "interrupted; the next setup completes it" in said
    assert WATCHER not in tree(top)
    assert f"write   /{WATCHER} (new)\n" in set_up(python, top)
    assert "nothing to change" in set_up(python, top)
