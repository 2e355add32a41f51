# SPDX-License-Identifier: MIT
"""Who is at work: real sockets, a real lock of a service, real audit logs."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import ROOT
from storewarden.auditlog import Verification
from storewarden.config import Config
from storewarden.daemon.status import ServiceStatus, held, write_status
from storewarden.doctor.attendance import (
    listeners,
    look_at_audit,
    look_at_daemon,
    look_at_helper,
    look_at_service,
)
from storewarden.doctor.facts import Daemon, Listening, Unknown


@contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener


def test_a_helper_that_listens_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    path = f"{tmp_path}/h.sock"
    with listening(path) as listener:
        assert path in listeners("/proc/net/unix")
        assert look_at_helper(path) is Listening.YES
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()  # nobody has called


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_the_name_of_somebody_s_socket_hides_no_other(tmp_path: Path, end: str) -> None:
    with listening(f"{tmp_path}/a{end}b c"), listening(f"{tmp_path}/h.sock"):
        assert f"{tmp_path}/h.sock" in listeners("/proc/net/unix")


def test_where_the_kernel_does_not_tell_it_is_called(tmp_path: Path) -> None:
    with listening(f"{tmp_path}/h.sock"):
        assert look_at_helper(f"{tmp_path}/h.sock", table="/dev/null") is Listening.YES


def test_a_socket_that_nobody_serves_is_told_from_none(tmp_path: Path) -> None:
    path = f"{tmp_path}/h.sock"
    assert look_at_helper(path) is Listening.NOTHING
    with listening(path):
        pass
    assert look_at_helper(path) is Listening.SILENT
    (tmp_path / "file").write_text("")
    assert look_at_helper(f"{tmp_path}/file") is Listening.NO_SOCKET


@pytest.mark.skipif(ROOT, reason="root may call anybody")
def test_a_socket_of_another_user_is_no_answer(tmp_path: Path) -> None:
    with listening(f"{tmp_path}/h.sock"):
        os.chmod(f"{tmp_path}/h.sock", 0)
        with pytest.raises(PermissionError):
            look_at_helper(f"{tmp_path}/h.sock", table="/dev/null")


@pytest.mark.parametrize("text", ["", "Num Path\n", "Num\nrubbish\n", "Num\n1: 2 3 zz 5 6 7 /x\n"])
def test_a_table_that_is_not_understood_lists_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "unix").write_text(text)
    assert listeners(f"{tmp_path}/unix") == frozenset()


def test_who_listens_for_nix_daemon_is_told(tmp_path: Path) -> None:
    (tmp_path / "daemon-socket").mkdir()
    assert look_at_daemon(str(tmp_path)) is None
    with listening(f"{tmp_path}/daemon-socket/socket"):
        found = look_at_daemon(str(tmp_path))
    assert isinstance(found, Daemon)
    assert (found.uid, found.pid) == (os.geteuid(), os.getpid())


def test_a_service_that_runs_is_told_with_what_it_says(tmp_path: Path) -> None:
    config = Config(runtime_dir=f"{tmp_path}/watch")
    assert look_at_service(config).running is False
    with held(config.runtime_dir):
        now = time.time()
        status = ServiceStatus(os.getpid(), now, now, "repair", "/nix/store")
        write_status(config.runtime_dir, status)
        found = look_at_service(config)
    assert (found.running, found.said, found.owns) == (True, status, ROOT)
    found = look_at_service(config)
    assert (found.running, found.installed) == (False, True)


def test_a_status_that_is_not_understood_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    assert look_at_service(Config(runtime_dir=str(tmp_path))).said is None


def test_an_audit_log_is_absent_or_verified(tmp_path: Path) -> None:
    assert look_at_audit(f"{tmp_path}/none/audit.jsonl") is None
    assert look_at_audit(f"{tmp_path}/audit.jsonl") is None
    (tmp_path / "audit.jsonl").write_text("rubbish\n")
    found = look_at_audit(f"{tmp_path}/audit.jsonl")
    assert isinstance(found, Verification)
    assert found.problem


@pytest.mark.skipif(ROOT, reason="root may read it")
def test_an_audit_log_that_may_not_be_seen_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir(mode=0)
    assert isinstance(look_at_audit(f"{tmp_path}/log/audit.jsonl"), Unknown)
    os.chmod(tmp_path / "log", 0o700)
