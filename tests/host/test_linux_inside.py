# SPDX-License-Identifier: MIT
"""Who has its root or its working directory in a directory: real processes, and a real chroot."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storewarden.host.linux import flocks, processes_inside
from storewarden.host.tables import exclusive_holders
from sweeps import leaderless

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux' own")


def own(proc: Path) -> str:
    """A table of this process's children, and of itself in the place of pid 1.

    Those of other users may not be looked at.
    """
    (proc / "1").symlink_to("/proc/self")
    for pid in os.listdir("/proc"):
        try:
            parent = (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")")[-1].split()[1]
            )
        except (OSError, IndexError):
            continue
        if parent == str(os.getpid()):
            (proc / pid).symlink_to(f"/proc/{pid}")
    return str(proc)


@contextmanager
def living_in(directory: Path) -> Iterator[int]:
    """A process whose working directory that is."""
    with subprocess.Popen(["sleep", "300"], cwd=directory) as child:
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Where a table can be made."""
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


@pytest.mark.parametrize("where", ["x.chroot", "x.chroot/root", "x.chroot/root/build"])
def test_a_process_in_it_or_below_it_is_found(tmp_path: Path, proc: Path, where: str) -> None:
    (tmp_path / where).mkdir(parents=True)
    with living_in(tmp_path / where) as pid:
        assert processes_inside(f"{tmp_path}/x.chroot", (), own(proc)) == [pid]


def test_a_process_beside_it_or_above_it_is_not(tmp_path: Path, proc: Path) -> None:
    for name in ("x.chroot", "x.chroot2"):
        (tmp_path / name).mkdir()
    with living_in(tmp_path), living_in(tmp_path / "x.chroot2"):
        assert processes_inside(f"{tmp_path}/x.chroot", (), own(proc)) == []


def test_a_process_is_found_by_what_its_directory_is_whatever_that_is_called(
    tmp_path: Path, proc: Path
) -> None:
    (tmp_path / "root").mkdir()
    found = (tmp_path / "root").stat()
    with living_in(tmp_path / "root") as pid:
        objects = {(found.st_dev, found.st_ino)}
        table = own(proc)
        assert processes_inside("/elsewhere", objects, table) == [pid]
        assert processes_inside("/elsewhere", {(found.st_dev, 0)}, table) == []


def test_a_process_in_a_directory_that_was_deleted_is_found_below_it(
    tmp_path: Path, proc: Path
) -> None:
    (tmp_path / "x.chroot" / "gone").mkdir(parents=True)
    with living_in(tmp_path / "x.chroot" / "gone") as pid:
        (tmp_path / "x.chroot" / "gone").rmdir()
        assert processes_inside(f"{tmp_path}/x.chroot", (), own(proc)) == [pid]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root")
def test_a_process_whose_root_it_is_is_found(tmp_path: Path, proc: Path) -> None:
    (tmp_path / "x.chroot" / "root").mkdir(parents=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(writing)
            os.chroot(tmp_path / "x.chroot" / "root")
            os.chdir("/")
            os.read(reading, 1)
        finally:
            os._exit(0)
    os.close(reading)
    try:
        while not os.path.samefile(f"/proc/{pid}/cwd", tmp_path / "x.chroot" / "root"):
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert processes_inside(f"{tmp_path}/x.chroot", (), own(proc)) == [pid]
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def test_a_process_that_ended_meanwhile_or_is_a_zombie_has_none(tmp_path: Path, proc: Path) -> None:
    (proc / "999999").mkdir()
    with subprocess.Popen(["true"], cwd=tmp_path) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes_inside(str(tmp_path), (), own(proc)) == []


def test_without_a_table_it_is_unknown(tmp_path: Path) -> None:
    assert processes_inside("/", (), f"{tmp_path}/absent") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look at most processes")
def test_a_process_that_may_not_be_looked_at_makes_it_unknown() -> None:
    assert processes_inside("/elsewhere", ()) is None


# What Linux hides or shows seldom, and must not be taken for absent.


def test_a_process_whose_main_thread_has_ended_is_still_inside(tmp_path: Path) -> None:
    for name in ("proc", "x.chroot"):
        (tmp_path / name).mkdir()
    (tmp_path / "proc" / "1").symlink_to("/proc/self")
    with leaderless(cwd=f"{tmp_path}/x.chroot") as pid:
        (tmp_path / "proc" / str(pid)).symlink_to(f"/proc/{pid}")
        assert processes_inside(f"{tmp_path}/x.chroot", (), f"{tmp_path}/proc") == [pid]


def test_where_pid_1_is_hidden_it_is_unknown_who_is_inside(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    assert processes_inside("/elsewhere", (), str(tmp_path)) is None


def test_a_lock_without_an_inode_does_no_harm(tmp_path: Path) -> None:
    # fs/locks.c prints this where a lock has no inode.
    none = "1: FLOCK  ADVISORY  WRITE 100 <none>:0 0 EOF\n"
    (tmp_path / "locks").write_text(f"{none}2: FLOCK  ADVISORY  WRITE 200 08:01:22 0 EOF\n")
    found = flocks(f"{tmp_path}/locks")
    assert found is None or exclusive_holders(found).get(22) == 200
