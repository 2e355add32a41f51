# SPDX-License-Identifier: MIT
"""The files that Nix has its settings from, as those meet them who may not read all of them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.doctor.configuration import hidden, included


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may go into, as /etc/nix is."""
    with tempfile.TemporaryDirectory(prefix="sw-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - as above
        yield Path(directory)


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """While this process may not read everything, as root may."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if own == 0:
            os.seteuid(0)


def closed(path: Path) -> str:
    path.write_text("access-tokens = secret\n")
    path.chmod(0)
    return str(path)


def hidden_by(place: Path, text: str) -> str:
    """What somebody may not read, where nix.conf says that."""
    (place / "nix.conf").write_text(text)
    with as_somebody():
        return hidden([f"{place}/nix.conf"])


def test_files_that_are_not_there_hide_nothing(place: Path) -> None:
    (place / "nix.conf").write_text("cores = 0\n")
    paths = [f"{place}/absent", f"{place}/nix.conf/nix.conf", f"{place}/nix.conf"]
    assert hidden(paths) == ""


def test_a_file_that_may_not_be_read_is_named(place: Path) -> None:
    conf = closed(place / "nix.conf")
    with as_somebody():
        assert hidden([f"{place}/absent", conf]) == conf


def test_one_behind_a_closed_directory_may_not_be_read_either(place: Path) -> None:
    (place / "closed").mkdir(mode=0)
    with as_somebody():
        assert hidden([f"{place}/closed/nix.conf"]) == f"{place}/closed/nix.conf"


@pytest.mark.parametrize("line", ["include tokens", "  !include\ttokens # them", "!include {}"])
def test_one_that_is_included_is_read_too(place: Path, line: str) -> None:
    tokens = closed(place / "tokens")
    assert hidden_by(place, f"cores = 0\n{line.format(tokens)}\n") == tokens


def test_one_that_an_included_one_includes_is_read_too(place: Path) -> None:
    (place / "more").mkdir()
    (place / "more/first").write_text("include ../tokens\n")
    tokens = closed(place / "tokens")
    assert hidden_by(place, "include more/first\n") == tokens


@pytest.mark.parametrize("line", ["# include tokens", "include", "include tokens b", "x = include"])
def test_what_includes_nothing_is_no_reason_to_doubt(place: Path, line: str) -> None:
    closed(place / "tokens")
    assert hidden_by(place, f"{line}\n") == ""


def test_files_that_include_each_other_are_read_once(place: Path) -> None:
    assert hidden_by(place, "include nix.conf\n!include ./nix.conf\n") == ""


@given(st.text())
def test_whatever_a_configuration_says_it_includes_absolute_paths(text: str) -> None:
    assert all(path.startswith("/") for path in included(text, "/etc/nix"))
