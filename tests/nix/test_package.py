# SPDX-License-Identifier: MIT
"""The package, really built by its own phases."""

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from nix.evaluating import (
    CHECKOUT,
    Nix,
    everything,
    library,
    new_nix,
    own_python,
    provide,
    words,
)

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture(scope="session")
def package(nix: Nix) -> str:
    return nix.build(*words(nix), "-A", "package")


def test_the_command_tells_its_version_without_any_variable(package: str) -> None:
    command = [f"{package}/bin/storewarden", "--version"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"-{done.stdout.strip().replace(' ', '-')}" in package


def test_the_hook_fails_no_build_and_finds_what_it_runs(package: str) -> None:
    hook = f"{package}/libexec/storewarden/pre-build-hook"
    for given, said in (([], ""), (["/nix/store/no.drv"], "storewarden: no.drv: what a build")):
        done = subprocess.run([hook, *given], env={}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr.startswith(said)
        assert bool(done.stderr) == bool(said)


def test_setup_finds_the_units_that_came_with_it(package: str, tmp_path: str) -> None:
    command = [f"{package}/bin/storewarden", "setup", "--root", str(tmp_path)]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.exists(f"{tmp_path}/etc/systemd/system/storewarden.service")


def test_man_pages_and_completions_lie_where_they_are_looked_for(package: str) -> None:
    assert set(os.listdir(package)) == {"bin", "lib", "libexec", "share"}
    for place in (
        "man/man1/storewarden.1",
        "man/man5/storewarden-config.5",
        "man/man8/storewarden-helper.8",
        "bash-completion/completions/storewarden",
        "fish/vendor_completions.d/storewarden.fish",
        "zsh/site-functions/_storewarden",
    ):
        assert os.path.exists(f"{package}/share/{place}")


def test_what_is_left_out_of_its_tests_is_there() -> None:
    text = Path(CHECKOUT, "nix/package.nix").read_text(encoding="utf-8")
    places = re.findall(r'^    "(tests/[^"]+)"$', text, re.MULTILINE)
    assert "tests/real" in places
    assert [place for place in places if not os.path.exists(f"{CHECKOUT}/{place}")] == []
    names = re.findall(r'^    "(test_[^"]+)"$', text, re.MULTILINE)
    assert names
    files = [file.read_text(encoding="utf-8") for file in Path(CHECKOUT, "tests").rglob("*.py")]
    assert [name for name in names if not any(f"def {name}(" in file for file in files)] == []


def test_it_has_what_nixpkgs_asks_of_a_package(nix: Nix) -> None:
    about = nix.value(*words(nix), "-A", "about")
    assert about["passthru"]["updateScript"]
    assert about["tests"] == ["vm"]
    assert about["meta"]["mainProgram"] == "storewarden"
    assert "homepage" not in about["meta"], "there is none before it is published"


def test_who_publishes_it_gives_it_an_address_in_one_place(nix: Nix, tmp_path: Path) -> None:
    sources = tmp_path / "storewarden"
    shutil.copytree(CHECKOUT, sources, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    [addresses] = re.findall(
        r"^```toml\n(\[project\.urls\]\n.+?)```$",
        Path(CHECKOUT, "CONTRIBUTING.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    with open(sources / "pyproject.toml", "a", encoding="utf-8") as file:
        file.write(addresses)
    published = replace(nix, sources=str(sources))
    meta = nix.value(*words(published), "-A", "about")["meta"]
    urls = tomllib.loads(addresses)["project"]["urls"]
    assert meta["homepage"] == urls["Homepage"]
    assert meta["changelog"] == urls["Changelog"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_its_own_tests_pass_in_an_environment_like_that_of_the_services() -> None:
    library()
    # Nix builds as an ordinary user, so the tests that want root are skipped there as well.
    # The tests listen on sockets, whose names have at most 107 bytes.
    top = tempfile.mkdtemp(prefix="sw-")
    try:
        enter = NOBODY if os.geteuid() == 0 else ()
        nix = new_nix(top, own_python(), enter=enter)
        provide(f"{top}/dependencies", nix.python, everything())
        if enter:
            os.chmod(top, 0o755)  # noqa: S103 - build users enter it
            subprocess.run(["chown", "-R", "65534:65534", top], check=True)
        nix.build(*words(nix), "-A", "checkedPackage", seconds=1100)
    finally:
        subprocess.run(["chmod", "-R", "u+w", top], check=True)
        shutil.rmtree(top)
