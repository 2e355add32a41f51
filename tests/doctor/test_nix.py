# SPDX-License-Identifier: MIT
"""The program and the daemon: stand-ins for the program answer, refuse, lie and hang."""

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stand_in import listening, write_program
from storewarden.config import Config
from storewarden.doctor import blind, diagnose
from storewarden.doctor.nix import Daemon, Installation, listening_daemon, look
from storewarden.doctor.patient import Patient, Unknown, admit
from storewarden.nix_queries import Flavour, NixVersion
from storewarden.store.nix import Nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Fact, Known
from well import (
    APART,
    NOTE,
    PROBLEM,
    STRANDING,
    UNKNOWN,
    WELL,
    but,
    named,
    with_settings,
    with_version,
)

ANSWERING = """
case "$*" in
*--version*) echo 'nix (Determinate Nix 3.20.0) 2.34.6' ;;
*path-info*) printf '{"%s":null}' "${6}" ;;
*store\\ info*) echo '{"version": "DAEMON"}' ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def state() -> Iterator[str]:
    """A state directory with a daemon's socket in it, whose name is not too long for one."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-") as directory,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.mkdir(f"{directory}/daemon-socket")
        listener.bind(f"{directory}/daemon-socket/socket")
        yield directory


def asked(directory: Path, body: str, state_dir: str, timeout: float = 10.0) -> Installation:
    """What is found of a Nix whose program does that."""
    program = write_program(f"{directory}/nix", body)
    return look(patient_of(Nix(program, StoreDir("/nix/store"), state_dir, timeout)))


def patient_of(nix: Nix) -> Patient:
    return admit(Config(state_dir=nix.state_dir), "", nix)


def answering(daemon: str) -> str:
    return ANSWERING.replace("DAEMON", daemon)


def test_all_is_asked_that_is_wanted(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, answering("2.34.6"), state)
    assert isinstance(nix.version, NixVersion)
    assert nix.version.name == "Determinate Nix 3.20.0 (Nix 2.34.6)"
    assert nix.builder == nix.daemon_version == nix.version
    assert nix.answers == Fact(Known.YES)


def test_a_daemon_of_another_version_is_what_builds(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, answering("2.26.3"), state)
    assert isinstance(nix.builder, NixVersion)
    assert nix.builder.name == "Nix 2.26.3"


def test_an_older_daemon_does_not_tell_its_version(tmp_path: Path, state: str) -> None:
    body = "case $* in *--version) echo 'nix (Nix) 2.8.0' ;; *path-info*) exit 1 ;; esac\n"
    nix = asked(tmp_path, body, state)
    assert nix.answers.known is Known.NO
    assert isinstance(nix.daemon_version, Unknown)
    body = body.replace("exit 1", """printf '{"%s":null}' "${6}" ;; *) exit 1""")
    nix = asked(tmp_path, body, state)
    assert nix.answers.known is Known.YES
    assert nix.daemon_version == Unknown("this Nix does not tell which version its daemon has")
    assert nix.builder == nix.version


def test_a_nix_that_is_not_there_is_unknown_throughout(tmp_path: Path, state: str) -> None:
    nix = look(patient_of(Nix(f"{tmp_path}/absent", StoreDir("/nix/store"), state)))
    for fact in (nix.version, nix.builder):
        assert isinstance(fact, Unknown)
    assert "no such file" in nix.answers.detail


@pytest.mark.parametrize(
    ("body", "misconfigured"),
    [
        ('[ "$NIX_CONF_DIR" = /dev/null ] || exit 1; echo "nix (Nix) 2.8.0"\n', True),
        ("exit 1\n", False),
        ("echo something else\n", False),
    ],
)
def test_whether_it_is_the_configuration_is_told_by_leaving_it_out(
    tmp_path: Path, state: str, body: str, *, misconfigured: bool
) -> None:
    nix = asked(tmp_path, body, state)
    assert isinstance(nix.version, Unknown)
    assert nix.misconfigured is misconfigured


def test_a_nix_that_hangs_is_not_waited_for(tmp_path: Path, state: str) -> None:
    nix = asked(tmp_path, "sleep 60\n", state, timeout=0.3)
    assert isinstance(nix.version, Unknown)
    assert "did not answer within" in nix.version.reason


def test_without_a_daemon_nothing_is_asked_that_makes_a_store(tmp_path: Path) -> None:
    body = f'echo "$@" >>{tmp_path}/words; echo "nix (Nix) 2.8.0"\n'
    nix = asked(tmp_path, body, f"{tmp_path}/none")
    assert nix.answers.known is Known.UNKNOWN
    words = (tmp_path / "words").read_text()
    assert "path-info" not in words
    assert "store" not in words


def test_who_listens_for_nix_daemon_is_told(tmp_path: Path) -> None:
    (tmp_path / "daemon-socket").mkdir()
    assert listening_daemon(str(tmp_path)) is None
    with listening(f"{tmp_path}/daemon-socket/socket"):
        found = listening_daemon(str(tmp_path))
    assert isinstance(found, Daemon)
    assert found.pid == os.getpid()


def test_a_daemon_outside_is_unknown_and_one_that_can_be_nowhere_a_problem() -> None:
    patient = but(WELL, Installation, daemon=APART)
    assert named(patient, "daemon").severity is UNKNOWN
    patient = but(WELL, Installation, state=Known.NO, daemon=None)
    assert named(patient, "daemon").severity is PROBLEM


def test_a_daemon_of_another_version_is_named_beside_the_program() -> None:
    old = NixVersion(Flavour.NIX, (2, 33, 0), "2.33.0")
    patient = but(WELL, Installation, daemon_version=old)
    assert named(patient, "nix").severity is NOTE
    assert named(patient, "orphaned-builders").title.startswith("Nix 2.33.0: ")
    untold = but(WELL, Installation, daemon_version=Unknown("it does not tell"))
    assert "it does not tell" in named(untold, "nix").title


BROKEN = Unknown("nix: error: illegal configuration line 'x' in '/etc/nix/nix.conf'")


@pytest.mark.parametrize("misconfigured", [True, False])
def test_a_daemon_is_not_restarted_because_the_program_fails(*, misconfigured: bool) -> None:
    silent = Fact(Known.NO, BROKEN.reason)
    patient = but(WELL, Installation, version=BROKEN, answers=silent, misconfigured=misconfigured)
    assert named(patient, "daemon").severity is UNKNOWN
    assert BROKEN.reason in named(patient, "nix").title
    assert "restart" not in str([one.steps for one in diagnose(patient)])
    assert ("install nix" in str(named(patient, "nix").steps).lower()) != misconfigured
    assert blind(patient)


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("", "/etc/nix/nix.custom.conf"),
        ("NixOS", "nix.settings of NixOS"),
        ("nix-darwin", "customSettings of Determinate's module for nix-darwin"),
    ],
)
def test_what_determinate_would_overwrite_is_not_where_a_setting_belongs(
    system: str, place: str
) -> None:
    ours = NixVersion(Flavour.DETERMINATE, (2, 34, 6), "3.20.0 (Nix 2.34.6)")
    patient = with_version(with_settings(replace(WELL, declared=system), STRANDING), ours)
    assert f"Set sandbox = true in {place}, if" in str(named(patient, "sandbox").steps)
