# SPDX-License-Identifier: MIT
"""What the services run, and what keeps it there."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from storewarden.setup.code import (
    FOR_PEOPLE,
    GC_ROOTS,
    KINDS,
    LOOK,
    NEEDED,
    PACKAGE,
    _gc_roots,
    ask_python,
    candidates,
)

PROJECT = Path(PACKAGE, "../../pyproject.toml")


@pytest.mark.skipif(not PROJECT.exists(), reason="the project's file is not here")
def test_what_is_copied_is_what_the_project_depends_on() -> None:
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert sorted(one.split(">")[0].replace("-", "_") for one in wanted) == sorted(NEEDED)


@pytest.mark.skipif(not PROJECT.exists(), reason="the project's file is not here")
def test_what_people_get_of_it_is_what_the_wheel_has_for_them() -> None:
    wheel = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert wheel["wheel"]["shared-data"] == FOR_PEOPLE
    inside = wheel["wheel"]["force-include"]
    for name in (*FOR_PEOPLE, *KINDS[:2]):
        assert any(inside.get(top) == f"storewarden/{top}" for top in (name, name.split("/")[0]))


def test_every_store_path_that_it_runs_from_gets_one_root() -> None:
    places = ["abc-python/bin/python", "abc-python/lib", "def-env/lib/x.py"]
    links = _gc_roots(["/usr/bin/sh", *(f"/nix/store/{place}" for place in places)])
    assert {link.path: link.target for link in links} == {
        f"{GC_ROOTS}/abc-python": "/nix/store/abc-python",
        f"{GC_ROOTS}/def-env": "/nix/store/def-env",
    }


def test_an_interpreter_tells_its_version_and_all_that_it_loads() -> None:
    looked = ask_python(sys.executable, LOOK)
    assert not isinstance(looked, str), looked
    version, places = looked
    assert tuple(version) == sys.version_info[:3]
    assert {f"{PACKAGE}/cli/__init__.py", f"{PACKAGE}/helper/engine.py"} <= set(places)


@pytest.mark.parametrize(
    ("what", "why"), [("import no_such_module", "no_such_module"), ("pass", "it said nothing")]
)
def test_an_interpreter_that_cannot_run_it_says_why(what: str, why: str) -> None:
    looked = ask_python(sys.executable, what)
    assert isinstance(looked, str)
    assert why in looked


def test_an_interpreter_that_is_not_there_is_told() -> None:
    assert "No such file" in str(ask_python("/nowhere/python", LOOK))


def test_of_a_mac_apples_stub_is_never_run_which_asks_to_install_tools() -> None:
    apples = "/Library/Developer/CommandLineTools/usr/bin/python3"
    for base in ("/usr/bin/python3", apples, "/opt/homebrew/bin/python3"):
        found = candidates(base, "darwin")
        assert not [one for one in found if one.startswith(("/usr/bin/", "/Library/Developer/"))]
        assert (base in found) == (base == "/opt/homebrew/bin/python3")
    assert "/usr/bin/python3" in candidates("/usr/bin/python3.13", "linux")


def test_roots_own_profile_and_one_for_this_alone_are_looked_into() -> None:
    profiles = "/nix/var/nix/profiles"
    assert {
        f"{profiles}/storewarden/bin/python3",
        f"{profiles}/default/bin/python3",
        f"{profiles}/per-user/root/profile/bin/python3",
    } <= set(candidates("/usr/bin/python3", "darwin"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and leave its own")
def test_root_leaves_no_caches_in_what_is_another_users(python: str, tmp_path: Path) -> None:
    place, kept = tmp_path / "venv", shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(python).parents[1], place, symlinks=True, ignore=kept)
    subprocess.run(["chown", "-R", "65534", place], check=True)
    top = tmp_path / "top"
    top.mkdir()
    for words in (["--version"], ["setup", "--dry-run", "--root", str(top)]):
        command = [f"{place}/bin/python", "-m", "storewarden", *words]
        subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})
        assert [*place.rglob("__pycache__")] == []
