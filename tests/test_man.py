# SPDX-License-Identifier: MIT
"""The man pages say all that there is, nothing that there is not, and the program's defaults."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from grammar import Command, commands
from programs import program
from storewarden.cli.service import document_of
from storewarden.cli.usage import exit_codes
from storewarden.config import DEFAULT_CONFIG, KEYS, Config
from storewarden.helper.__main__ import _parser
from storewarden.store.entries import EntryKind
from storewarden.store.nix import NIX_PLACES

MAN = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/man"
PAGES = sorted(os.listdir(MAN))
COMMANDS = [one for one in commands() if not one.is_a_choice]
_LINES = re.MULTILINE
of_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the pages give Linux' defaults, and say where macOS differs"
)
_ALL = re.MULTILINE | re.DOTALL
_HELP = {"-h", "--help"}
_STORE = "STORE OPTIONS"


def _page(name: str) -> str:
    text = Path(MAN, name).read_text(encoding="ascii")
    return text.replace("\\-", "-").replace("\\(dq", '"')


def _section(page: str, name: str, macro: str = "Sh") -> str:
    """All of a section, or with `Ss` of a part of one, up to the next."""
    (found,) = re.findall(rf"^\.{macro} {name}\n(.*?)(?=^\.S[hs] |\Z)", page, _ALL)
    return str(found)


def _items(text: str) -> dict[str, str]:
    """Each item of a list: what stands behind `.It`, and its text up to the next or the end."""
    return dict(re.findall(r"^\.It (.*?)\n(.*?)(?=^\.It |^\.El)", text, _ALL))


def _flags(line: str) -> set[str]:
    """The options of one line of macros, as they are typed."""
    words = re.findall(r"Fl ((?:-?[\w-]+(?: [,|] )?)+)", line)
    return {f"-{flag}" for some in words for flag in re.split(r" [,|] ", some)}


def _options(text: str) -> dict[str, tuple[str, str]]:
    """By option, the argument that it is described with, and its text."""
    found: dict[str, tuple[str, str]] = {}
    for head, told in _items(text).items():
        argument = head.partition(" Ar ")[2]
        found |= dict.fromkeys(_flags(head), (argument, told))
    return found


def _default(text: str) -> str:
    """What a text says after `Default:`; nothing where that is words."""
    (found,) = re.findall(r"^Default:(?:\n\.Ql (.*?)(?: [.,])?$)?", text, _LINES)
    return str(found)


def _usage(page: str, name: str) -> str:
    """What the synopsis has for a command."""
    synopsis = _section(page, "SYNOPSIS")
    (found,) = re.findall(rf"^\.Cm {name}\n(.*?)(?=^\.Nm|\Z)", synopsis, _ALL)
    return str(found)


def _described(command: Command) -> dict[str, tuple[str, str]]:
    """The options that the page has for a command."""
    page = _page("storewarden.1")
    text = _section(page, command.name, "Ss")
    found = _options(text)
    return found | _options(_section(page, _STORE)) if f".Sx {_STORE}" in text else found


def _taken(actions: Sequence[argparse.Action]) -> dict[str, argparse.Action]:
    return {way: one for one in actions for way in one.option_strings if way not in _HELP}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_clean_mdoc(page: str) -> None:
    lint = [program("mandoc", "mandoc"), "-T", "lint", "-W", "warning", f"{MAN}/{page}"]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_name_and_section_and_what_it_refers_to_is_there(page: str) -> None:
    name, _, number = page.rpartition(".")
    text = _page(page)
    assert f"\n.Dt {name.upper()} {number}\n" in text
    assert _section(text, "NAME").startswith(f".Nm {name}\n.Nd ")
    for other in re.findall(r"\.Xr (storewarden\S* \d)", text):
        assert other.replace(" ", ".") in PAGES


def test_the_wheel_installs_each_page_where_man_looks() -> None:
    project = tomllib.loads(Path(MAN, "..", "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for page in PAGES:
        assert shared[f"man/{page}"] == f"share/man/man{page[-1]}/{page}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_each_option_of_a_command_is_described_and_no_other(command: Command) -> None:
    described, taken = _described(command), _taken(command.parser._actions)
    assert described.keys() == taken.keys()
    for way, action in taken.items():
        assert described[way][0] == str(action.metavar or "").lower(), way
    for action in command.places:
        name = str(action.metavar).lower()
        assert f".Ar {name}" in _section(_page("storewarden.1"), command.name, "Ss")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_the_synopsis_has_each_option_and_argument_of_a_command(command: Command) -> None:
    page = _page("storewarden.1")
    usage = _usage(page, command.name)
    # What a command takes besides may need a -- before it, which is no option.
    shown = set[str]().union(*map(_flags, usage.splitlines())) - {"--"}
    if ".Op Ar store-option ..." in usage:
        shown |= _options(_section(page, _STORE)).keys()
    assert shown == _taken(command.parser._actions).keys()
    for action in command.places:
        assert re.search(rf"^\.(Op )?Ar {action.metavar}\b", usage, _LINES | re.IGNORECASE)


def test_nothing_is_described_that_is_no_command_in_the_order_of_the_help() -> None:
    page = _page("storewarden.1")
    names = [one.name for one in COMMANDS]
    assert re.findall(r"^\.Ss (.*)$", page, _LINES) == names
    assert re.findall(r"^\.Cm (.*)$", _section(page, "SYNOPSIS"), _LINES) == names


@of_linux
@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_the_defaults_of_options_are_those_of_the_program(command: Command) -> None:
    described, defaults = _described(command), document_of(Config()) | {"config": DEFAULT_CONFIG}
    for way, action in _taken(command.parser._actions).items():
        default = action.default or defaults.get(way.removeprefix("--"))
        if default:
            assert _default(described[way][1]) == default, way


def test_nix_is_looked_for_where_the_page_says() -> None:
    text = _options(_section(_page("storewarden.1"), _STORE))["--nix"][1]
    assert tuple(re.findall(r"^\.Pa (\S+)", text, _LINES)) == NIX_PLACES


def test_each_kind_is_described_and_no_other() -> None:
    items = _items(_section(_page("storewarden.1"), "KINDS"))
    assert [head.removeprefix("Cm ") for head in items] == list(EntryKind)


def _codes() -> Iterator[tuple[str, str]]:
    for code, text in re.findall(r"^  (\d+) +(.*(?:\n {7}.*)*)", exit_codes(), _LINES):
        yield code, " ".join(text.split())


def test_the_exit_codes_are_those_of_the_help() -> None:
    items = _items(_section(_page("storewarden.1"), "EXIT STATUS"))
    assert {code: " ".join(text.split()) for code, text in items.items()} == dict(_codes())


@of_linux
def test_each_key_of_the_configuration_is_described_with_its_default_and_no_other() -> None:
    items = _items(_section(_page("storewarden-config.5"), "KEYS"))
    described = {head.removeprefix("Ic "): _default(text) for head, text in items.items()}
    assert sorted(described) == sorted(KEYS), "give man/storewarden-config.5 an .It Ic for each key"
    defaults = document_of(Config())
    assert {key: json.loads(text) for key, text in described.items() if text} == defaults


def test_each_argument_of_the_helper_is_described_with_its_default_and_no_other() -> None:
    page = _page("storewarden-helper.8")
    described = _options(_section(page, "DESCRIPTION"))
    taken = _taken(_parser()._actions)
    assert described.keys() == taken.keys()
    shown = set[str]().union(*map(_flags, _section(page, "SYNOPSIS").splitlines()))
    assert shown - _HELP - {"-I"} == taken.keys()
    for way, action in taken.items():
        argument, text = described[way]
        assert argument in {str(action.metavar).lower(), "file", "dir", "group"}, way
        match action.default:
            case float(seconds):
                assert _default(text) == f"{seconds:.0f}", way
            case str(default):
                assert _default(text) == default, way


def test_the_helper_ends_as_its_page_says() -> None:
    text = _section(_page("storewarden-helper.8"), "EXIT STATUS")
    assert list(_items(text)) == ["0", "2", "3"]
