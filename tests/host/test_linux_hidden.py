# SPDX-License-Identifier: MIT
"""What Linux hides or shows seldom, and must not be taken for absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("this is the Linux half", allow_module_level=True)

from storewarden.host.linux import flocks, processes_inside
from storewarden.host.tables import exclusive_holders

LEADERLESS = """
import ctypes, threading, sys, time
def work():
    time.sleep(0.2)
    print("alone", flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_has_ended_is_still_inside(tmp_path: Path) -> None:
    for name in ("proc", "x.chroot"):
        (tmp_path / name).mkdir()
    (tmp_path / "proc" / "1").symlink_to("/proc/self")
    with subprocess.Popen(
        [sys.executable, "-c", LEADERLESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path / "x.chroot",
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"alone\n"
            (tmp_path / "proc" / str(child.pid)).symlink_to(f"/proc/{child.pid}")
            found = processes_inside(f"{tmp_path}/x.chroot", (), f"{tmp_path}/proc")
            assert found == [child.pid]
        finally:
            child.kill()


def test_where_pid_1_is_hidden_it_is_unknown_who_is_inside(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    assert processes_inside("/elsewhere", (), str(tmp_path)) is None


def test_a_lock_without_an_inode_does_no_harm(tmp_path: Path) -> None:
    # fs/locks.c prints this where a lock has no inode.
    none = "1: FLOCK  ADVISORY  WRITE 100 <none>:0 0 EOF\n"
    (tmp_path / "locks").write_text(f"{none}2: FLOCK  ADVISORY  WRITE 200 08:01:22 0 EOF\n")
    found = flocks(f"{tmp_path}/locks")
    assert found is None or exclusive_holders(found).get(22) == 200
