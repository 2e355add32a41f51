# SPDX-License-Identifier: MIT
"""`storewarden setup --prevent --root DIR`: the hook, the setting, the line; and back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from json_documents import checked
from staging import MANIFEST, picture, run, set_up, tree
from storewarden.prevention import HOOK, INCLUDE, INCLUDED, chained
from storewarden.setup import prevent
from storewarden.setup.files import Manifest, put
from storewarden.setup.plan import Write

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS asks who called sudo")
CONF, CUSTOM = "/etc/nix/nix.conf", "/etc/nix/nix.custom.conf"


def settings(top: str, text: str, conf: str = CONF) -> None:
    place = Path(f"{top}{conf}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    if os.geteuid() == 0:
        for one in (place, place.parent, place.parent.parent):
            os.chown(one, 65534, 65534)


def test_it_puts_the_hook_there_first_and_one_line_into_the_settings_last(
    python: str, top: str
) -> None:
    settings(top, "sandbox = false")
    done = run(python, top, "--prevent", "--json")
    paths = [step["path"] for step in checked(done.stdout, "setup")["steps"]]
    assert paths.index(HOOK) < paths.index(INCLUDED) < paths.index(CONF) == len(paths) - 1
    assert Path(f"{top}{CONF}").read_text() == f"sandbox = false\n{INCLUDE}\n"
    assert Path(f"{top}{INCLUDED}").read_text().endswith(f"\npre-build-hook = {HOOK}\n")
    assert os.stat(f"{top}{HOOK}").st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_whoever_may_read_the_settings_still_may(tmp_path: Path) -> None:
    top = str(tmp_path)
    settings(top, f"access-tokens = secret\n{INCLUDE}\n")
    for one in (tmp_path / "etc", tmp_path / "etc/nix"):
        os.chown(one, 0, 0)
    os.chmod(f"{top}{CONF}", 0o640)
    [step] = prevent.steps_off(Manifest(), top)
    assert isinstance(step, Write)
    put(step.item, top)
    now = os.stat(f"{top}{CONF}")
    assert (now.st_mode & 0o777, now.st_uid, now.st_gid) == (0o640, 65534, 65534)
    assert Path(f"{top}{CONF}").read_text() == "access-tokens = secret\n"


def test_a_second_time_nothing_is_done_and_without_being_asked_again_it_stays(
    python: str, top: str
) -> None:
    set_up(python, top, "--prevent")
    before = picture(top)
    for words in (["--prevent"], []):
        said = set_up(python, top, *words)
        assert said == "nothing to change: everything is as it should be\n"
    assert picture(top) == before


def test_the_setting_goes_first_the_line_then_and_the_hook_last(python: str, top: str) -> None:
    settings(top, "# mine\nsandbox = false\n")
    set_up(python, top, "--prevent")
    done = run(python, top, "--uninstall", "--json")
    paths = [step["path"] for step in checked(done.stdout, "setup")["steps"]]
    assert (paths[:2], paths[-1]) == ([INCLUDED, CONF], HOOK)
    assert Path(f"{top}{CONF}").read_text() == "# mine\nsandbox = false\n"
    assert not os.path.exists(f"{top}/etc/storewarden")


def test_what_nix_takes_for_one_line_stays_one_and_comes_back_byte_for_byte(
    python: str, top: str
) -> None:
    settings(top, "")
    theirs = b"# off:\rsandbox = false\r\n# a\x0c!include b\ncores = 2\r\n"
    Path(f"{top}{CONF}").write_bytes(theirs)
    set_up(python, top, "--prevent")
    assert Path(f"{top}{CONF}").read_bytes() == theirs + f"{INCLUDE}\n".encode()
    set_up(python, top, "--uninstall", "--prevent")
    assert Path(f"{top}{CONF}").read_bytes() == theirs


def test_prevention_alone_is_taken_back_and_the_rest_stays(python: str, top: str) -> None:
    settings(top, "sandbox = false\n")
    set_up(python, top)
    before = {name: seen for name, seen in tree(top).items() if name != f"/{MANIFEST}"}
    set_up(python, top, "--prevent")
    set_up(python, top, "--uninstall", "--prevent")
    assert {name: seen for name, seen in tree(top).items() if name != f"/{MANIFEST}"} == before
    assert set_up(python, top) == "nothing to change: everything is as it should be\n"


def test_where_determinates_daemon_writes_nix_conf_the_line_goes_into_nix_custom_conf(
    python: str, top: str
) -> None:
    theirs = "!include nix.custom.conf\n"
    settings(top, theirs)
    settings(top, "", CUSTOM)
    set_up(python, top, "--prevent")
    assert Path(f"{top}{CUSTOM}").read_text() == f"{INCLUDE}\n"
    assert Path(f"{top}{CONF}").read_text() == theirs
    set_up(python, top, "--uninstall")
    assert Path(f"{top}{CUSTOM}").read_text() == ""


def test_a_hook_that_is_set_already_is_run_after_ours(python: str, top: str) -> None:
    settings(top, "include more.conf\npre-build-hook = \n")
    settings(top, "pre-build-hook = /first # no\n", "/etc/nix/more.conf")
    set_up(python, top, "--prevent")
    assert chained(Path(f"{top}{HOOK}").read_text()) == ""
    settings(top, "pre-build-hook = /it's mine\n!include more.conf\n" + f"{INCLUDE}\n")
    set_up(python, top, "--prevent")
    assert chained(Path(f"{top}{HOOK}").read_text()) == "/first"
    settings(top, f"pre-build-hook = /it's mine\n{INCLUDE}\n")
    assert f"write   {HOOK} (changed)\n" in set_up(python, top)
    assert chained(Path(f"{top}{HOOK}").read_text()) == "/it's mine"


def test_settings_that_are_a_link_are_left_to_who_made_them(python: str, top: str) -> None:
    settings(top, "", "/etc/nix/elsewhere")
    os.symlink("elsewhere", f"{top}{CONF}")
    done = run(python, top, "--prevent")
    assert done.returncode == 3
    assert f"{CONF} is not a plain file; add this line where it is made: {INCLUDE}" in done.stderr
    assert not os.path.exists(f"{top}{HOOK}")


def test_the_hook_alone_begins_and_says_nothing(python: str, top: str) -> None:
    set_up(python, top, "--prevent")
    [code] = os.listdir(f"{top}/opt/storewarden")
    text = (
        Path(f"{top}{HOOK}")
        .read_text()
        .replace(f"/opt/storewarden/{code}", f"{top}/opt/storewarden/{code}")
    )
    done = subprocess.run(["sh", "-c", text, "hook"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.dumps(text).count("before_build.py") == 1


def test_who_was_begun_by_the_old_daemon_until_its_end_may_run_the_hook_still() -> None:
    before, worker, daemon, fresh = (10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)
    now = frozenset({worker, daemon, fresh})
    told = prevent.also_forked(frozenset({before}), now, daemon[1])
    assert told == frozenset({before, worker})
    assert prevent.also_forked(frozenset({before}), now, None) == now | {before}
    assert prevent.also_forked(frozenset({before}), None, daemon[1]) is None
    assert prevent.also_forked(None, now, daemon[1]) is None
