# SPDX-License-Identifier: MIT
"""What the services run, and what keeps it there."""

import sys
import tomllib
from pathlib import Path

import pytest

from storewarden.setup.code import GC_ROOTS, LOOK, NEEDED, PACKAGE, _gc_roots, ask_python

PROJECT = Path(PACKAGE, "../../pyproject.toml")


@pytest.mark.skipif(not PROJECT.exists(), reason="the project's file is not here")
def test_what_is_copied_is_what_the_project_depends_on() -> None:
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert sorted(one.split(">")[0].replace("-", "_") for one in wanted) == sorted(NEEDED)


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
