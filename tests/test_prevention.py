# SPDX-License-Identifier: MIT
"""The hook's text, and the settings that lead to it."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs import program
from storewarden.prevention import (
    CUSTOM_CONF,
    HOOK,
    INCLUDE,
    NIX_CONF,
    chained,
    conf_of,
    hook_text,
    includes_ours,
    other_hook,
)

paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1)


@given(other=paths.map(lambda name: f"/{name}"))
def test_the_other_hook_is_told_from_the_text_whatever_it_is_called(other: str) -> None:
    assert chained(hook_text("/p", "/c", "/f", ("/etc/nix/nix.conf", other))) == other
    assert chained(hook_text("/p", "/c", "/f", None)) == ""


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_it_ends_where_the_ends_of_children_come_in_blocked(shell: str, tmp_path: Path) -> None:
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "before_build.py").touch()
    text = hook_text(program("true", "coreutils"), str(tmp_path), "/f", None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        done = subprocess.run([shell, "-c", text], capture_output=True, timeout=5, check=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_hook_that_has_gone_since_fails_no_build() -> None:
    text = hook_text("/no/python", "/c", "/f", ("/etc/nix/nix.conf", "/no/it's hook"))
    done = subprocess.run(["sh", "-c", text, "h", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "/no/it's hook is gone; it is not run" in done.stderr


@pytest.mark.parametrize("shell", [["sh"], ["bash", "--posix"]])
@pytest.mark.parametrize("name", ["plain", "a b", "it's", "$(exit 1)", "-n"])
def test_whatever_is_run_it_ends_with_0_and_prints_nothing(
    shell: list[str], name: str, tmp_path: Path
) -> None:
    for script in ("exit 0", "exit 1", "echo no", "kill -9 $$", "exec sleep 30"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        code = tmp_path / "helper" / "before_build.py"
        code.parent.mkdir(exist_ok=True)
        code.touch()
        text = hook_text(str(program), str(tmp_path), "/f", None)
        words = [*shell, "-c", text, "hook", "/nix/store/x.drv"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
        assert (done.returncode, done.stdout) == (0, "")
        assert ("was ended (137)" in done.stderr) is (
            "exit" not in script and "echo" not in script
        ), (script, done.stderr)


def write(top: Path, **files: str) -> str:
    place = top / "etc/nix"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"{name.replace('_', '.')}.conf").write_text(text)
    return str(top)


def test_of_several_settings_the_last_one_counts_as_nix_reads_them(tmp_path: Path) -> None:
    top = write(tmp_path, nix="pre-build-hook = /a\n!include nix.custom.conf\n", nix_custom="")
    assert other_hook(top) == (NIX_CONF, "/a")
    write(tmp_path, nix_custom="  pre-build-hook=/b # why\n")
    assert other_hook(top) == (CUSTOM_CONF, "/b")
    write(tmp_path, nix_custom="pre-build-hook =\n")
    assert other_hook(top) is None
    assert conf_of(top) == CUSTOM_CONF


def test_our_own_is_not_another_hook(tmp_path: Path) -> None:
    top = write(tmp_path, nix=f"{INCLUDE}\n")
    os.makedirs(tmp_path / "etc/storewarden")
    (tmp_path / "etc/storewarden/nix.conf").write_text(f"pre-build-hook = {HOOK}\n")
    assert other_hook(top) is None
    assert includes_ours(top)
    assert not includes_ours(write(tmp_path, nix="#" + INCLUDE))


def test_settings_that_include_each_other_come_to_an_end(tmp_path: Path) -> None:
    top = write(tmp_path, nix="include nix.conf\ninclude gone.conf\n")
    assert other_hook(top) is None
    assert conf_of(f"{top}/nowhere") == NIX_CONF
