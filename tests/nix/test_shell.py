# SPDX-License-Identifier: MIT
"""What the flake has for people: a shell to develop in, and a setup that asks for root."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from nix.evaluating import CHECKOUT, Nix, words

SETUP = Path(CHECKOUT, "nix/setup.sh").read_text(encoding="ascii")


@pytest.fixture
def workshop(nix: Nix, tmp_path: Path) -> Path:
    """A checkout after the shell's hook has run in it."""
    hook = nix.value(*words(nix), "-A", "shellHook")
    checkout = tmp_path / "checkout"
    shutil.copytree(CHECKOUT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    done = run(checkout, "bash", "-euc", hook)
    assert (done.returncode, done.stderr) == (0, "")
    return checkout


def run(place: Path, *command: str, path: str = "") -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{path}:/usr/bin:/bin".lstrip(":"), "HOME": str(place)}
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_make_has_nothing_to_fetch_there(workshop: Path) -> None:
    done = run(workshop, "make", "--question", ".venv/.ready")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        (".venv/bin/storewarden", "--version"),
        (".venv/bin/python", "-I", "-m", "storewarden.helper", "--help"),
        (".venv/bin/python", "-m", "mypy", "--version"),
        (".venv/bin/python", "-m", "pytest", "-q", "tests/test_claims.py", "-n", "1"),
        (".venv/bin/lint-imports", "--no-logo"),
    ],
    ids=lambda command: Path(command[-1]).name,
)
def test_what_make_calls_works_there(workshop: Path, command: tuple[str, ...]) -> None:
    done = run(workshop, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_code_is_that_of_the_checkout(workshop: Path) -> None:
    words = "import storewarden, sys; print(storewarden.__file__, sys.prefix)"
    done = run(workshop, ".venv/bin/python", "-I", "-c", words)
    library = workshop / ".venv/lib"
    found, prefix = done.stdout.split()
    assert os.path.realpath(found) == f"{workshop}/src/storewarden/__init__.py"
    assert prefix == str(library.parent)


def test_elsewhere_the_shell_makes_nothing(nix: Nix, tmp_path: Path) -> None:
    done = run(tmp_path, "bash", "-euc", nix.value(*words(nix), "-A", "shellHook"))
    assert done.returncode == 0
    assert "not in a checkout" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory for PATH with a `sudo`, an `id` and a program, each of which says what it got."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, text in (
        ("sudo", 'echo "sudo: $*"'),
        ("id", "echo 1000"),
        ("storewarden", 'echo "storewarden: $*"'),
    ):
        (place / name).write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
        (place / name).chmod(stat.S_IRWXU)
    return place


def setup(programs: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = f"program={programs}/storewarden\n{SETUP}"
    return run(programs, "bash", "-euc", script, "bash", *arguments, path=str(programs))


def test_setup_asks_for_root_by_a_path_that_sudo_finds(programs: Path) -> None:
    done = setup(programs, "--uninstall")
    assert done.stdout == f"sudo: {programs}/storewarden setup --uninstall\n"
    assert done.stderr == f"as root: sudo {programs}/storewarden setup --uninstall\n"


@pytest.mark.parametrize("word", ["--dry-run", "-n", "--help", "--root=/srv/staging"])
def test_to_look_or_to_stage_wants_no_root(programs: Path, word: str) -> None:
    done = setup(programs, word)
    assert (done.stdout, done.stderr) == (f"storewarden: setup {word}\n", "")


def test_without_sudo_it_says_what_root_has_to_run(programs: Path) -> None:
    (programs / "sudo").unlink()
    script = f"PATH={programs}\nprogram={programs}/storewarden\n{SETUP}"
    done = run(programs, "bash", "-euc", script)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"as root: {programs}/storewarden setup" in done.stderr


def test_root_is_asked_nothing(programs: Path) -> None:
    (programs / "id").write_text("#!/bin/sh\necho 0\n", encoding="ascii")
    done = setup(programs)
    assert (done.stdout, done.stderr) == ("storewarden: setup\n", "")
