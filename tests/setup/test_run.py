# SPDX-License-Identifier: MIT
"""`storewarden setup --root DIR`, run as a packager runs it: by an ordinary user."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from delivery import deliver_here

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS asks who called sudo")
UNITS = "etc/systemd/system"
WATCHER = f"{UNITS}/storewarden.service"
CONFIG = "etc/storewarden/config.toml"
MANIFEST = "etc/storewarden/manifest.json"
USER = 65534 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="storewarden-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user is another one
        yield deliver_here(f"{directory}/venv")


@pytest.fixture
def top() -> Iterator[str]:
    """A staging directory of the ordinary user's."""
    with tempfile.TemporaryDirectory(prefix="storewarden-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user is another one
        place = f"{directory}/staging"
        os.mkdir(place, 0o755)
        os.chown(place, USER, -1)
        yield place


def words(python: str, top: str, *more: str) -> list[str]:
    return [python, "-I", "-B", "-m", "storewarden", "setup", "--root", top, *more]


def run(python: str, top: str, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words(python, top, *more),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
        user=USER,
        env={"PATH": "/usr/bin:/bin"},
    )


def set_up(python: str, top: str, *more: str) -> str:
    done = run(python, top, *more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def tree(top: str) -> dict[str, tuple[int, bytes]]:
    """Mode and content, or target, of all below that directory."""
    found = {}
    for place, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = f"{place}/{name}"
            if os.path.islink(path):
                content = os.fsencode(os.readlink(path))
            else:
                content = Path(path).read_bytes() if os.path.isfile(path) else b""
            found[path.removeprefix(top)] = (os.lstat(path).st_mode, content)
    return found


def picture(top: str) -> dict[str, tuple[int, int]]:
    """Inode and time of change of all below that directory."""
    places = (f"{place}/{name}" for place, ds, fs in os.walk(top) for name in (*ds, *fs))
    return {path: (os.lstat(path).st_ino, os.lstat(path).st_ctime_ns) for path in places}


def test_it_writes_units_that_run_a_copy_and_a_second_time_nothing(python: str, top: str) -> None:
    said = set_up(python, top)
    [code] = os.listdir(f"{top}/opt/storewarden")
    copy = f"/opt/storewarden/{code}/bin/python"
    assert f"ExecStart={copy} -I -m storewarden watch\n" in Path(top, WATCHER).read_text()
    assert f"write   /{WATCHER} (new)\n" in said
    before = picture(top)
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"
    assert picture(top) == before


def test_the_copy_runs_alone(python: str, top: str) -> None:
    set_up(python, top)
    [code] = os.listdir(f"{top}/opt/storewarden")
    look = "import psutil, storewarden.cli, watchdog, sys; print(storewarden.__file__, *sys.path)"
    copy = f"{top}/opt/storewarden/{code}/bin/python"
    done = subprocess.run(
        [copy, "-I", "-B", "-c", look], capture_output=True, text=True, check=True
    )
    file, *places = done.stdout.split()
    assert file.startswith(f"{top}/opt/storewarden/{code}/lib/")
    assert not [place for place in places if os.path.dirname(os.path.dirname(python)) in place]


def test_the_copy_sets_up_the_same_again(python: str, top: str) -> None:
    set_up(python, top)
    [code] = os.listdir(f"{top}/opt/storewarden")
    before = picture(top)
    done = run(f"{top}/opt/storewarden/{code}/bin/python", top, "--dry-run", "--json")
    assert [step for step in json.loads(done.stdout)["steps"] if code not in str(step)] == []
    assert picture(top) == before


def test_a_dry_run_shows_each_step_and_takes_none(python: str, top: str) -> None:
    said = set_up(python, top, "--dry-run")
    assert f"write   /{WATCHER} (new)\n" in said
    assert "with --dry-run none of them is taken" in said
    assert tree(top) == {}
    shown = json.loads(set_up(python, top, "--dry-run", "--json"))
    assert shown["dry-run"] is True
    assert {"write", "link"} == {step["do"] for step in shown["steps"]}
    assert f"/{WATCHER}" in {step["path"] for step in shown["steps"]}
    assert tree(top) == {}


def test_what_was_set_up_is_taken_back_whole(python: str, top: str) -> None:
    set_up(python, top)
    said = set_up(python, top, "--uninstall")
    assert f"remove  /{WATCHER}\n" in said
    assert tree(top) == {}
    assert "nothing to remove" in set_up(python, top, "--uninstall")


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


def test_a_configuration_changed_by_hand_is_kept_and_needs_no_words(python: str, top: str) -> None:
    set_up(python, top)
    Path(top, CONFIG).write_text('mode = "report"\n')
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"
    assert f"keep    /{CONFIG}" in set_up(python, top, "--uninstall")
    assert Path(top, CONFIG).read_text() == 'mode = "report"\n'
    assert "(new)" in set_up(python, top)
    assert Path(top, CONFIG).read_text() == 'mode = "report"\n'


def test_a_mode_that_was_changed_is_put_right(python: str, top: str) -> None:
    set_up(python, top)
    os.chmod(f"{top}/{WATCHER}", 0o666)  # noqa: S103 - the point of the test
    assert f"write   /{WATCHER} (changed)\n" in set_up(python, top)
    assert os.stat(f"{top}/{WATCHER}").st_mode & 0o777 == 0o644


def test_what_an_older_version_wrote_goes(python: str, top: str) -> None:
    set_up(python, top)
    manifest = json.loads(Path(top, MANIFEST).read_text())
    for path in (f"/{UNITS}/older.service", f"/{UNITS}/changed.service"):
        Path(top + path).write_text("older\n")
        manifest["files"][path] = ["0" * 64]
    manifest["files"][f"/{UNITS}/older.service"] = [hashlib.sha256(b"older\n").hexdigest()]
    Path(top, MANIFEST).write_text(json.dumps(manifest))
    said = set_up(python, top)
    assert f"remove  /{UNITS}/older.service\n" in said
    assert f"keep    /{UNITS}/changed.service" in said
    assert not os.path.exists(f"{top}/{UNITS}/older.service")
    assert os.path.exists(f"{top}/{UNITS}/changed.service")


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


def interrupted_at(python: str, top: str, path: str, how: signal.Signals, *more: str) -> str:
    """What it says when it gets that signal as soon as `path` has come, or gone."""
    there = os.path.lexists(f"{top}{path}")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        words(python, top, *more), cwd="/", user=USER, stdout=subprocess.DEVNULL, stderr=pipe
    ) as process:
        while os.path.lexists(f"{top}{path}") is there:
            assert process.poll() is None, f"it ended, and {path} has neither come nor gone"
        process.send_signal(how)
        assert process.stderr is not None
        return process.stderr.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--uninstall",)], ids=["set-up", "taken-back"])
def test_killed_at_any_moment_the_next_run_completes_it(
    more: tuple[str, ...], python: str, top: str
) -> None:
    set_up(python, top)
    whole = tree(top)
    paths = sorted(json.loads(Path(top, MANIFEST).read_text())["files"])
    cut_off = 0
    for path in (f"/{MANIFEST}", *paths[::12]):
        if not more:
            set_up(python, top, "--uninstall")
        interrupted_at(python, top, path, signal.SIGKILL, *more)
        cut_off += tree(top) not in (whole, {})
        set_up(python, top, *more)
        # Cut off after the manifest has gone, a directory above it may stay.
        assert ({} if tree(top).keys() <= {"/etc"} else tree(top)) == ({} if more else whole)
        if more:
            set_up(python, top)
    assert cut_off > 5


def test_ctrl_c_says_how_to_go_on(python: str, top: str) -> None:
    said = interrupted_at(python, top, f"/{MANIFEST}", signal.SIGINT)
    assert "interrupted; the next setup completes it" in said
    assert WATCHER not in tree(top)
    assert f"write   /{WATCHER} (new)\n" in set_up(python, top)
    assert "nothing to change" in set_up(python, top)
