# SPDX-License-Identifier: MIT
"""What `--help` says of each command, and that what it says is so."""

import argparse
import re
import shlex
import sys
from pathlib import Path

import pytest

from command import PROGRAM, run, typed
from grammar import Command, commands
from storewarden import __version__
from storewarden.cli import COMMANDS, parser
from storewarden.cli.front import FILES
from storewarden.cli.usage import exit_codes

_WIDTH = 80
_COMMANDS = pytest.mark.parametrize("command", commands(), ids=lambda one: one.name or "itself")


def _help(command: Command) -> str:
    done = run([*PROGRAM, *command.words, "--help"], COLUMNS=str(_WIDTH))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _examples(text: str) -> list[str]:
    """The commands after `examples:`, up to the next empty line."""
    given = text.partition("\nexamples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in given.splitlines()]


def _written(command: Command) -> list[str]:
    """Its examples, as they stand in the source."""
    return _examples(f"\n{command.parser.epilog}")


@_COMMANDS
def test_an_example_by_sudo_is_typed_as_sudo_finds_it_and_another_as_it_is_written(
    command: Command,
) -> None:
    expected = [typed(one) if one.startswith("sudo ") else one for one in _written(command)]
    assert _examples(_help(command)) == expected


@_COMMANDS
def test_help_describes_the_command_shows_examples_and_fits_80_columns(command: Command) -> None:
    text = _help(command)
    assert text.startswith(f"usage: storewarden {command.name}".rstrip())
    typed_whole = {typed(f"  {example}") for example in _written(command)}
    long = {line for line in text.splitlines() if len(line) > _WIDTH}
    assert long <= typed_whole
    assert (command.parser.description or "").strip()
    assert _examples(text)
    assert command.name == "audit" or exit_codes("".join(command.words[:1])) in text


@_COMMANDS
def test_at_40_columns_nothing_is_longer_and_no_word_is_cut(command: Command) -> None:
    wide, narrow = (
        run([*PROGRAM, *command.words, "--help"], COLUMNS=columns).stdout
        for columns in ("200", "40")
    )
    assert set(narrow.partition("\n\n")[2].split()) == set(wide.partition("\n\n")[2].split())
    assert " ".join(narrow.split()).startswith(f"usage: storewarden {command.name}".rstrip())
    long = [line for line in narrow.splitlines() if len(line) > 40]
    assert [line for line in long if "/" not in line and "usage: " not in line] == []


@_COMMANDS
def test_help_as_a_command_shows_the_same(command: Command) -> None:
    asked = run([*PROGRAM, "help", *command.words], COLUMNS=str(_WIDTH))
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, _help(command), "")


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_told(word: str) -> None:
    assert run([*PROGRAM, word]).stdout == f"storewarden {__version__}\n"


def test_a_help_has_the_exit_codes_of_its_command_alone() -> None:
    assert "no known failure" in exit_codes("explain")
    assert "no known failure" not in exit_codes("scan")
    assert "126" not in exit_codes("scan")
    assert "  127  there is no CMD" in exit_codes("run").splitlines()


@pytest.mark.parametrize("shell", FILES)
def test_completion_prints_what_is_committed(shell: str) -> None:
    done = run([*PROGRAM, "completion", shell])
    committed = Path(__file__).parents[2] / "completions" / FILES[shell]
    assert (done.returncode, done.stdout) == (0, committed.read_text(encoding="utf-8"))


@_COMMANDS
def test_each_example_is_one_that_the_command_takes(command: Command) -> None:
    for example in _examples(_help(command)):
        (said,) = re.findall(r"(?:^|[ |/])storewarden (.*?)(?: {2,}| \| |$)", example)
        assert said.startswith(command.name), example
        assert callable(parser().parse_args(shlex.split(said)).run), example


@_COMMANDS
def test_each_option_and_each_word_has_a_line_of_help(command: Command) -> None:
    silent = [one for one in command.parser._actions if not one.help]
    assert [one for one in silent if one.nargs != "A..."] == []


def test_the_list_of_commands_has_a_line_for_each() -> None:
    listed = _help(commands()[0]).splitlines()
    for command in commands():
        if len(command.words) == 1:
            assert f"    {command.name:<12}   {command.line}" in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_loaded_by_its_name(name: str) -> None:
    (below,) = [one for one in parser([name])._actions if one.nargs == argparse.PARSER]
    runs = {one: command.get_default("run") for one, command in dict(below.choices or {}).items()}
    assert [one for one, run in runs.items() if run] == [name]
    assert list(runs) == list(COMMANDS)


def _loaded(*words: str) -> set[str]:
    """What Python imports when it is started so, and the interpreter did not by itself."""
    modules = []
    for some in (("-c", "pass"), words):
        told = run([sys.executable, "-X", "importtime", *some]).stderr
        modules.append({line.rpartition("|")[2].strip() for line in told.splitlines()})
    return modules[1] - modules[0]


def test_a_command_loads_nothing_of_the_others() -> None:
    loaded = _loaded("-m", "storewarden", "scan", "--help")
    packages = {"daemon", "doctor", "explain", "helper", "run", "setup"}
    assert not loaded & {f"storewarden.{one}" for one in packages}
    assert "storewarden.scan" in loaded


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_the_version_and_the_list_of_commands_load_argparse_and_the_table(word: str) -> None:
    loaded = _loaded("-m", "storewarden", word)
    assert "argparse" in loaded
    assert {one for one in loaded if one.startswith("storewarden")} == {
        "storewarden",
        "storewarden.cli",
        "storewarden.cli.usage",
        "storewarden.errors",
    }
    heavy = {
        "dataclasses",
        "difflib",
        "inspect",
        "json",
        "psutil",
        "shutil",
        "sqlite3",
        "subprocess",
    }
    assert not loaded & (heavy | {"threading", "tomllib", "traceback", "typing"})
