# SPDX-License-Identifier: MIT
"""What should be on this machine, and the commands that put it to work, by system."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from storewarden.config import DEFAULT_CONFIG
from storewarden.setup import darwin, linux
from storewarden.setup.code import NEEDED, Program, program
from storewarden.setup.files import File, Item, State, state_of
from storewarden.setup.manifest import Manifest
from storewarden.setup.plan import Keep
from storewarden.setup.trust import SetupError, missing_directories

LAUNCHER = "/usr/local/bin/storewarden"
_FIRST_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.toml")
Words = list[list[str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be there."""

    program: Program
    others: tuple[Item, ...]
    """All but the program's own files, which come first."""
    keeps: tuple[Keep, ...]
    start: Callable[[bool], Words]
    """The commands for the end, told whether anything has changed."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it."""
        return (*self.program.items, *self.others)

    @property
    def paths(self) -> frozenset[str]:
        """Where it is, and what is kept in the place of some of it."""
        return frozenset(one.path for one in (*self.items, *self.keeps))


def wanted(before: Manifest, top: str) -> Wanted:
    """For the machine this runs on, or, below `top`, for any machine of this system."""
    code = program()
    launcher, keeps = _launcher(code, before, top)
    if sys.platform == "darwin":
        owner = darwin.person(os.environ)
        config = _config(darwin.first_settings(owner))
        files = darwin.jobs(code.python, owner)
        start: Callable[[bool], Words] = lambda changed: darwin.start_words(owner, changed=changed)  # noqa: E731
    else:
        config = _config("")
        machine = linux.Machine() if top else linux.this_machine(DEFAULT_CONFIG)
        files = linux.units(code.python, machine)
        start = lambda changed: linux.start_words(changed=changed)  # noqa: E731
    return Wanted(code, (*launcher, config, *files), keeps, start)


def checks(code: Program) -> Words:
    """Commands that compile a new copy of the code once, and prove it to be whole."""
    if code.copied is None:
        return []
    imports = f"import storewarden.cli, storewarden.helper.__main__, {', '.join(NEEDED)}"
    return [
        [code.python, "-I", "-m", "compileall", "-q", f"{code.copied}/lib"],
        [code.python, "-I", "-B", "-c", imports],
    ]


def _launcher(
    code: Program, before: Manifest, top: str
) -> tuple[tuple[File, ...], tuple[Keep, ...]]:
    """The command for people, where the copy has none in their PATH, and it can be put there."""
    if code.copied is None:
        return (), ()
    text = (
        f"#!{code.python} -I\nimport sys\n\nfrom storewarden.cli import main\n\nsys.exit(main())\n"
    )
    file = File(LAUNCHER, text.encode(), 0o755)
    try:
        missing_directories(os.path.dirname(LAUNCHER), top or "/")
        if state_of(file, top, before.files.get(LAUNCHER, ())) is not State.OTHERS:
            return (file,), ()
        why = "not written by setup, or changed since"
    except SetupError as cause:
        why = str(cause)
    return (), (Keep(LAUNCHER, f"{why}; what is set up: {code.python} -I -m storewarden"),)


def _config(more: str) -> File:
    with open(_FIRST_CONFIG, "rb") as file:
        return File(DEFAULT_CONFIG, file.read() + more.encode(), once=True)
