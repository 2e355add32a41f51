# SPDX-License-Identifier: MIT
"""What `--help` says of each command, and that what it says is so."""

import argparse
import re
import shlex
import sys

import pytest

from command import PROGRAM, run
from grammar import Command, commands
from storewarden.cli import COMMANDS, parser
from storewarden.cli.options import EXIT_CODES

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


@_COMMANDS
def test_help_describes_the_command_shows_examples_and_fits_80_columns(command: Command) -> None:
    text = _help(command)
    assert text.startswith(f"usage: storewarden {command.name}".rstrip())
    assert [line for line in text.splitlines() if len(line) > _WIDTH] == []
    assert (command.parser.description or "").strip()
    assert _examples(text)
    assert command.name == "audit" or EXIT_CODES in text


@_COMMANDS
def test_each_example_is_one_that_the_command_takes(command: Command) -> None:
    for example in _examples(_help(command)):
        (said,) = re.findall(r"(?:^|[ |])storewarden (.*?)(?: {2,}| \| |$)", example)
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
            assert f"    {command.name:<12}  {command.line}" in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_loaded_by_its_name(name: str) -> None:
    (below,) = [one for one in parser([name])._actions if one.nargs == argparse.PARSER]
    assert list(below.choices or ()) == [name]


def test_a_command_loads_nothing_of_the_others() -> None:
    code = "import sys; from storewarden.cli import parser; parser(['scan']); print(*sys.modules)"
    loaded = run([sys.executable, "-c", code]).stdout.split()
    packages = ("doctor", "explain", "helper", "run", "service", "setup")
    assert [one for one in packages if f"storewarden.{one}" in loaded] == []
    assert "storewarden.scan" in loaded
