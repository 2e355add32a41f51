# SPDX-License-Identifier: MIT
"""What an ordinary user sees of real processes."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from storewarden.processes import (
    Running,
    _older,
    command_of,
    identified,
    oldest_daemon,
    processes_of,
    running,
)
from sweeps import building_as, leaderless


def test_a_process_is_found_by_its_uid() -> None:
    found = processes_of([os.geteuid()])
    if found is None:
        pytest.skip("other users' processes are hidden here")
    assert os.getpid() in found
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in (processes_of([os.geteuid()]) or [])
    assert child.pid not in (processes_of([os.geteuid()]) or [child.pid])


def test_a_uid_without_processes_has_none() -> None:
    assert processes_of([872415231]) in ([], None)
    assert processes_of([]) in ([], None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a build user")
def test_a_process_of_another_user_is_found() -> None:
    with building_as(872480001) as pid:
        assert pid in (processes_of([872480001]) or [])


def test_a_zombie_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.pid not in (processes_of([os.geteuid()]) or [])


def test_a_command_is_one_short_line_of_plain_characters() -> None:
    words = ["-c", "echo; read x", "a\nb\x1b[2J", "\xe9\u202e", "x" * 5000]
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", *words], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"  # only now it surely is what it was told to be
        command = command_of(child.pid)
    assert command is not None
    assert command.startswith("sh -c echo; read x a\\nb\\x1b[2J")
    assert (command.isascii(), command.isprintable(), len(command) < 200) == (True, True, True)


def test_what_is_not_there_has_no_command() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert command_of(child.pid) is None


def test_a_process_is_told_with_its_user_and_since_when_it_runs() -> None:
    with subprocess.Popen(["sleep", "300"]) as child:
        try:
            while not psutil.Process(child.pid).cmdline():
                time.sleep(0.01)  # the kernel has not given it its words yet
            seen = running(child.pid)
        finally:
            child.kill()
    assert (seen.pid, seen.command, seen.client) == (child.pid, "sleep 300", None)
    assert seen.user is not None
    assert seen.began is not None
    assert abs(time.time() - seen.began) < 60
    assert running(child.pid) == Running(child.pid), "of one that has ended only its number"


def test_a_worker_of_nix_daemon_names_the_process_that_it_works_for() -> None:
    with subprocess.Popen(["sleep", "300"]) as client:
        # It sleeps as many seconds as the client's number is.
        words = ["nix-daemon", str(client.pid)]
        with subprocess.Popen(words, executable=shutil.which("sleep")) as worker:
            try:
                while not psutil.Process(worker.pid).cmdline():
                    time.sleep(0.01)
                seen = running(worker.pid)
            finally:
                worker.kill()
                client.kill()
    assert (seen.client, seen.client_command) == (client.pid, "sleep 300")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when the machine was started")
def test_a_process_is_the_same_after_the_clock_was_set_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, parent = identified(os.getpid()), identified(os.getppid())
    for name in (os.getpid(), os.getppid()):
        os.symlink(f"/proc/{name}", tmp_path / str(name))
    text = Path("/proc/stat").read_text(encoding="ascii")
    later = re.sub(r"(?m)^btime (\d+)", lambda found: f"btime {int(found[1]) + 3600}", text)
    (tmp_path / "stat").write_text(later, encoding="ascii")
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))  # psutil's own way to read another
    assert identified(os.getpid()) == own != parent
    assert identified(2**22 + 1) is None


def test_a_process_that_began_after_the_worker_is_not_its_client() -> None:
    assert _older(os.getpid(), time.time()) == command_of(os.getpid())
    assert _older(os.getpid(), 1000.0) is None


def test_the_daemon_is_known_by_its_name_and_not_taken_for_its_workers(tmp_path: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "sleep", tmp_path / "nix-daemon")
    with subprocess.Popen(["nix-daemon", "infinity"], executable=program) as daemon:
        began = psutil.Process(daemon.pid).create_time()
        assert (oldest_daemon() or began + 1) <= began  # the machine may run an older one
        daemon.kill()
        os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
        assert oldest_daemon() != began, "a zombie is none"
    with subprocess.Popen(["nix-daemon", "60"], executable=program) as worker:
        assert oldest_daemon() != psutil.Process(worker.pid).create_time()
        worker.kill()


# A process whose main thread has ended: psutil calls it a zombie, its threads live on.


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such zombies")
def test_a_process_whose_main_thread_has_ended_is_alive() -> None:
    with leaderless() as pid:
        found = processes_of([os.geteuid()])
        assert found is None or pid in found
