# SPDX-License-Identifier: MIT
"""nix.conf: who may not read all of it, what Nix tells of it, and when it was changed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stand_in import write_program
from storewarden.doctor import diagnose
from storewarden.doctor.nix import (
    Installation,
    NixConf,
    hidden,
    included,
    last_changed,
    look_at_settings,
)
from storewarden.doctor.patient import Unknown
from storewarden.nix_queries import Settings
from storewarden.store.nix import Nix
from storewarden.store.paths import StoreDir
from well import APART, NOW, OK, UNKNOWN, WELL, but, named, severities, with_conf, with_settings


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


def looked_at(directory: Path, body: str) -> NixConf:
    """What is found where nix.conf is there, and where Nix does that."""
    program = write_program(f"{directory}/nix", body)
    nix = Nix(program, StoreDir("/nix/store"), f"{directory}/state")
    return look_at_settings(nix, [f"{directory}/nix.conf"])


def test_older_programs_are_asked_in_their_own_words(tmp_path: Path) -> None:
    body = """
case "$*" in
*show-config\\ --json)
    echo '{"sandbox": {"value": false}, "experimental-features": {"value": [0]}}' ;;
*show-config) echo 'experimental-features = ca-derivations' ;;
*) exit 1 ;;
esac
"""
    expected = Settings(sandbox="false", features=frozenset({"ca-derivations"}))
    assert looked_at(tmp_path, body).settings == expected


def test_settings_that_nix_does_not_tell_are_unknown_with_its_reason(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "echo error: it is broken >&2; exit 1\n")
    assert found.settings == Unknown("nix: error: it is broken")


def test_settings_from_a_file_that_cannot_be_read_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "nix.conf").mkdir()
    found = looked_at(tmp_path, f"touch {tmp_path}/asked\n")
    assert found.settings == Unknown(f"{tmp_path}/nix.conf: is a directory")
    assert not (tmp_path / "asked").exists()


def test_when_the_configuration_was_changed_is_told_by_its_files(tmp_path: Path) -> None:
    assert last_changed([f"{tmp_path}/absent"]) is None
    (tmp_path / "one").write_text("")
    changed = last_changed([f"{tmp_path}/absent", f"{tmp_path}/one"])
    assert changed == os.stat(f"{tmp_path}/one").st_ctime


LEFT_OUT = {"sandbox", "content-addressed", "build-users"}


def test_settings_that_are_not_told_leave_nothing_well() -> None:
    patient = with_conf(WELL, settings=Unknown("it failed"))
    assert named(patient, "settings").severity is UNKNOWN
    assert not LEFT_OUT & severities(patient, OK)
    for name in LEFT_OUT:
        assert named(with_settings(WELL, Settings()), name).severity is UNKNOWN


def test_settings_that_this_user_may_not_read_are_for_root_to_tell() -> None:
    place = "/etc/nix/nix.conf"
    unread = Unknown(f"this user may not read {place}")
    patient = with_conf(WELL, settings=unread, hidden=place)
    found = named(replace(patient, uid=1000), "settings")
    assert (found.severity, found.title) == (UNKNOWN, f"This user may not read {place}")
    assert [step.command for step in found.steps] == ["sudo storewarden doctor"]
    assert not named(patient, "settings").steps
    assert not LEFT_OUT & severities(patient, OK)


def test_a_daemon_outside_leaves_its_settings_and_users_untold() -> None:
    patient = but(WELL, Installation, daemon=APART)
    assert not (LEFT_OUT | {"homeless-shelter"}) & {one.name for one in diagnose(patient)}


def test_a_configuration_that_is_newer_than_the_daemon_is_not_believed() -> None:
    patient = with_conf(WELL, changed=NOW)
    assert named(patient, "settings").severity is UNKNOWN
    assert "settings" not in severities(but(patient, Installation, daemon=None), UNKNOWN)
