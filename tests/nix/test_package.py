# SPDX-License-Identifier: MIT
"""The package, really built by its own phases."""

import os
import subprocess

import pytest

from nix.evaluating import Nix, words


@pytest.fixture(scope="session")
def package(nix: Nix) -> str:
    return nix.build(*words(nix), "-A", "package")


def test_the_command_tells_its_version_without_any_variable(package: str) -> None:
    command = [f"{package}/bin/storewarden", "--version"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"-{done.stdout.strip().replace(' ', '-')}" in package


def test_setup_finds_the_units_that_came_with_it(package: str, tmp_path: str) -> None:
    command = [f"{package}/bin/storewarden", "setup", "--root", str(tmp_path)]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(f"{tmp_path}/etc/systemd/system/storewarden.service")


def test_man_pages_and_completions_are_left_out_as_long_as_there_are_none(package: str) -> None:
    assert set(os.listdir(package)) == {"bin", "lib", "libexec", "share"}
    assert os.listdir(f"{package}/share") == ["storewarden"]


@pytest.mark.slow
def test_its_own_tests_pass_in_an_environment_like_that_of_the_services(nix: Nix) -> None:
    nix.build(*words(nix), "-A", "checkedPackage")
