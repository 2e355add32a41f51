# SPDX-License-Identifier: MIT
"""Completions: they are those of the argparse tree, and real shells understand them."""

import os
import sys
import tomllib
from pathlib import Path

import pytest

from completions.generate import FILES, completions
from grammar import Command, commands
from shells import CHECKOUT, COMPLETIONS, offered
from storewarden.store.entries import EntryKind

_SHELLS = pytest.mark.parametrize("shell", FILES)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' defaults are committed")
@_SHELLS
def test_what_is_committed_is_what_make_completions_writes(shell: str) -> None:
    committed = Path(COMPLETIONS, FILES[shell]).read_text(encoding="utf-8")
    assert committed == completions(shell), "say: make completions"


@_SHELLS
def test_a_shell_completes_each_command(shell: str, tmp_path: Path) -> None:
    choices = [one for one in commands() if one.is_a_choice]
    lines = [_line(one) for one in choices]
    told = offered(shell, ["storewarden sc", *lines], str(tmp_path))
    assert told[0] == {"scan"}
    for command, words in zip(choices, told[1:], strict=True):
        assert words - {"-h", "--help", "--version"} == set(_below(command))


def _line(command: Command) -> str:
    return " ".join(["storewarden", *command.words, ""])


def _below(command: Command) -> list[str]:
    return [one.words[-1] for one in commands()[1:] if one.words[:-1] == command.words]


@_SHELLS
def test_a_shell_completes_each_option_of_each_command(shell: str, tmp_path: Path) -> None:
    lines = [f"{_line(one)}--" for one in commands()]
    told = offered(shell, ["storewarden scan --k", *lines], str(tmp_path))
    assert told[0] == {"--kind"}
    for command, words in zip(commands(), told[1:], strict=True):
        assert words == {way for way in command.options if way.startswith("--")}, command.name


@_SHELLS
def test_a_shell_completes_kinds_and_files_and_directories(shell: str, tmp_path: Path) -> None:
    (tmp_path / "build.log").touch()
    os.mkdir(tmp_path / "below")
    lines = {
        "storewarden scan --kind o": {kind for kind in EntryKind if kind.startswith("o")},
        "storewarden scan --kind output --kind l": {"lock"},
        "storewarden explain --log b": {"build.log", "below"},
        "storewarden explain bu": {"build.log"},
        "storewarden check-config bu": {"build.log"},
        "storewarden watch --config bu": {"build.log"},
        "storewarden scan --store-dir b": {"below"},
        "storewarden setup --root b": {"below"},
        "storewarden scan --min-age b": set[str](),
    }
    told = offered(shell, list(lines), str(tmp_path))
    assert dict(zip(lines, told, strict=True)) == lines


def test_the_files_are_those_that_the_wheel_installs() -> None:
    project = tomllib.loads(Path(CHECKOUT, "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert {f"completions/{name}" for name in FILES.values()} <= shared.keys()
