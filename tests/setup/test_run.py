# SPDX-License-Identifier: MIT
"""`storewarden setup --root DIR`: there, again, and back."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from command import typed
from json_documents import checked
from staging import (
    CONFIG,
    HELPER,
    MANIFEST,
    UNITS,
    WATCHER,
    picture,
    run,
    set_up,
    tree,
)
from storewarden.config import KEYS, Config, parse_config
from storewarden.daemon.status import SILENCE, ServiceStatus, held, write_status
from storewarden.setup import darwin, linux
from storewarden.setup.darwin import Person, settings
from storewarden.setup.run import (
    ASK,
    ASK_WATCHER,
    Order,
    _answer,
    first_config,
    install,
    word_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS asks who called sudo")


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
    assert [step for step in checked(done.stdout, "setup")["steps"] if code not in str(step)] == []
    assert picture(top) == before


def test_each_step_is_told_with_its_number(tmp_path: Path) -> None:
    told: list[str] = []
    install(Order(str(tmp_path), dry_run=False, as_json=True, say=lambda _: None, at=told.append))
    assert len(told) >= 5, "three units, a link, a configuration; more where the code is copied"
    assert told == [f"step {number} of {len(told)}" for number in range(1, len(told) + 1)]


def test_a_dry_run_shows_each_step_and_takes_none(python: str, top: str) -> None:
    said = set_up(python, top, "--dry-run")
    assert f"write   /{WATCHER} (new)\n" in said
    assert "with --dry-run none of them is taken" in said
    assert tree(top) == {}
    shown = checked(set_up(python, top, "--dry-run", "--json"), "setup")
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


def test_the_helper_of_an_older_version_reads_the_configuration_from_now_on(
    python: str, top: str
) -> None:
    set_up(python, top)
    unit = Path(top, HELPER)
    new = unit.read_text()
    old = new.replace(" --config /etc/storewarden/config.toml", "")
    assert old != new
    unit.write_text(old)
    Path(top, CONFIG).write_text('build-group = "builders"\n')
    manifest = json.loads(Path(top, MANIFEST).read_text())
    manifest["files"][f"/{HELPER}"] = [hashlib.sha256(old.encode()).hexdigest()]
    Path(top, MANIFEST).write_text(json.dumps(manifest))
    assert set_up(python, top) == f"write   /{HELPER} (changed)\n"
    assert unit.read_text() == new
    assert Path(top, CONFIG).read_text() == 'build-group = "builders"\n'
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"


def test_the_first_configuration_of_an_older_version_stays_and_goes_with_it(
    python: str, top: str
) -> None:
    set_up(python, top)
    Path(top, CONFIG).write_text("# older\n")
    manifest = json.loads(Path(top, MANIFEST).read_text())
    manifest["files"][f"/{CONFIG}"] = [hashlib.sha256(b"# older\n").hexdigest()]
    Path(top, MANIFEST).write_text(json.dumps(manifest))
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"
    assert Path(top, CONFIG).read_text() == "# older\n"
    set_up(python, top, "--uninstall")
    assert tree(top) == {}


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


# The configuration that setup writes where there is none.


FIRST = first_config({}, linux.AFTER_A_CHANGE)


def test_it_says_nothing_but_the_defaults() -> None:
    assert parse_config(tomllib.loads(FIRST)) == Config()
    assert not [line for line in FIRST.splitlines() if not re.match("#|$", line)]


def test_what_is_commented_out_is_the_default_or_an_example_that_is_read() -> None:
    lines = re.findall(r"^#([a-z-]+ = .*)$", FIRST, re.MULTILINE)
    shown = {line.split(" = ")[0]: tomllib.loads(line) for line in lines}
    assert shown.keys() == KEYS.keys()
    for key, row in KEYS.items():
        value = getattr(parse_config(shown[key]), row.name)
        assert (value == row.default) is (row.default is not None)


def test_on_macos_it_names_places_that_are_there() -> None:
    ours = settings(Person("alice", 501, "/Users/alice"))
    text = first_config(ours, darwin.AFTER_A_CHANGE)
    config = parse_config(tomllib.loads(text))
    assert config == parse_config(ours) != Config()
    assert config.runtime_dir == "/Users/alice/Library/Application Support/storewarden"
    assert "systemctl" not in text
    assert f"launchctl kill SIGHUP system/{darwin.WATCHER}\n" in text
    assert "systemctl reload storewarden\n" in FIRST


def test_a_watcher_is_fresh_if_it_runs_and_has_told_of_itself_lately(tmp_path: Path) -> None:
    place = str(tmp_path)
    status = ServiceStatus(os.getpid(), time.time(), time.time(), "repair", "/nix/store")
    assert word_of(place) == "it does not run"
    with held(place):
        assert word_of(place) == "it has said nothing yet"
        write_status(place, status)
        assert word_of(place) == "fresh"
        write_status(place, replace(status, updated=time.time() - 2 * SILENCE))
        assert word_of(place) == "it has said nothing yet"
        Path(place, "status.json").write_text("rubbish")
        assert "cannot understand" in word_of(place)
    write_status(place, status)
    assert word_of(place) == "it does not run", "what one that is gone has said is not fresh"


# Where setup refuses to touch the machine itself.


SETUP = (sys.executable, "-m", "storewarden", "setup")
BOOTED = os.path.isdir("/run/systemd/system")


def refused(*words: str) -> str:
    done = subprocess.run([*SETUP, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stdout == ""
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux" or BOOTED, reason="systemd runs here")
def test_without_systemd_it_says_what_to_do_instead() -> None:
    assert f"as root: {typed('storewarden watch')}" in refused()
    assert "no systemd runs here" in refused("--dry-run")


@pytest.mark.skipif(sys.platform != "linux" or BOOTED, reason="systemd runs here")
def test_without_systemd_it_can_be_taken_back() -> None:
    words = [*SETUP, "--uninstall", "--dry-run"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to remove: there is no /etc/storewarden/manifest.json" in done.stdout


@pytest.mark.skipif(not BOOTED or os.geteuid() == 0, reason="only for an ordinary user")
def test_an_ordinary_user_is_told_to_be_root() -> None:
    assert typed("sudo storewarden setup") in refused()


def test_a_staging_directory_must_be_there() -> None:
    assert "/nowhere/staging is not a directory" in refused("--root", "/nowhere/staging")


def test_the_machine_itself_is_no_staging_directory() -> None:
    assert "leave it out" in refused("--root", "/")


def test_a_helper_that_is_not_there_gives_a_reason(tmp_path: Path) -> None:
    asked = [sys.executable, "-c", ASK, f"{tmp_path}/helper.sock"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
    assert "helper.sock cannot be reached: no such file" in done.stdout


def test_the_question_to_the_helper_is_whole() -> None:
    words = [sys.executable, "-I", "-B", "-c", ASK, "/nowhere/helper.sock"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "/nowhere/helper.sock" in done.stdout


def test_the_question_to_the_watchers_directory_is_whole(tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-B", "-c", ASK_WATCHER, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "it does not run\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="asks as another user")
def test_who_is_not_at_work_at_once_is_asked_again_until_the_time_is_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ask = "import os, sys; print('fresh' if os.path.exists(sys.argv[1]) else 'not yet')"
    place, python = tmp_path / "at-work", os.path.realpath(sys.executable)
    began = threading.Timer(0.7, place.touch)
    began.start()
    words, soon = [ask, str(place)], time.monotonic() + 30
    assert _answer(python, "root", words, "fresh", soon) == "fresh"
    began.join()
    assert _answer(python, "root", [ask, "/nowhere"], "fresh", time.monotonic()) == "not yet"
