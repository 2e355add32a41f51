# SPDX-License-Identifier: MIT
"""Which processes belong to whoever holds a lock, told by real flocks and real parents."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from helper.child import needs_root
from storewarden.host.linux import holds, orphans
from sweeps import needs_lock_table

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux' own"),
    needs_lock_table,
]

# Takes the lock, starts what it is told to, and says its pid and that of the process below it.
_WORKER = """
import fcntl, os, subprocess, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
with subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE, text=True) as builder:
    print(builder.pid, builder.stdout.readline(), flush=True)
    sys.stdin.read()
    builder.kill()
"""
_BELOW = ["sh", "-c", "sleep 60 >/dev/null & echo $!; wait"]
# Who is between them has ended before the pid is told.
_DETACHED = ["sh", "-c", "pid=$(sleep 60 >/dev/null & echo $!); echo $pid; exec sleep 60"]

# So many, each the parent of the next one, and each takes over what has lost its parent below it.
_FOSTERED = """
import ctypes, os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for left in range(int(sys.argv[1]), 0, -1):
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    print(os.getpid(), flush=True)
    if left == 1 or os.fork():
        break
while True:
    signal.pause()
"""


@contextmanager
def worker(lock: Path, *words: str) -> Iterator[tuple[int, int, int]]:
    """A process that holds that lock, one that it has started, and what that has started."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WORKER, str(lock), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        builder, below = map(int, process.stdout.readline().split())
        try:
            yield process.pid, builder, below
        finally:
            os.kill(below, signal.SIGKILL)
            process.communicate()


def test_what_the_holder_of_the_lock_has_started_is_no_orphan_nor_is_what_that_has_started(
    tmp_path: Path,
) -> None:
    with worker(tmp_path / "lock", *_BELOW) as family:
        assert orphans(f"{tmp_path}/lock", family) == []


def test_what_is_beside_it_is_an_orphan(tmp_path: Path) -> None:
    with worker(tmp_path / "lock", *_BELOW) as family, subprocess.Popen(["sleep", "60"]) as other:
        assert orphans(f"{tmp_path}/lock", [other.pid, *family]) == [other.pid]
        other.kill()


def test_what_was_forked_twice_cannot_be_told_from_an_orphan(tmp_path: Path) -> None:
    with worker(tmp_path / "lock", *_DETACHED) as (_, builder, below):
        assert orphans(f"{tmp_path}/lock", [builder, below]) == [below]


def test_where_nobody_holds_the_lock_all_are_orphans(tmp_path: Path) -> None:
    assert orphans(f"{tmp_path}/absent", [os.getpid()]) == [os.getpid()]
    (tmp_path / "free").touch()
    assert orphans(f"{tmp_path}/free", [os.getpid()]) == [os.getpid()]


def test_a_shared_lock_makes_nobody_its_holder(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert orphans(f"{tmp_path}/lock", [os.getpid()]) == [os.getpid()]
        fcntl.flock(file, fcntl.LOCK_EX)
        assert orphans(f"{tmp_path}/lock", [os.getpid()]) == []


def test_what_stands_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (tmp_path / "link").symlink_to("lock")
        assert orphans(f"{tmp_path}/link", [os.getpid()]) == [os.getpid()]


def test_where_the_lock_cannot_be_looked_at_all_are_orphans_and_nobody_holds_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    lock = f"{tmp_path}/file/lock"
    assert orphans(lock, [os.getpid()]) == [os.getpid()]
    assert not holds(os.getpid(), lock)


@pytest.mark.parametrize(("times", "orphaned"), [(1, False), (7, False), (8, True)])
def test_what_is_handed_from_parent_to_parent_is_followed_as_long_as_that_ends(
    times: int, *, orphaned: bool, tmp_path: Path
) -> None:
    with open(tmp_path / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-I", "-S", "-c", _FOSTERED, "10"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            pids = [int(first.stdout.readline()) for _ in range(10)]
            ended: list[int] = []

            def end_its_parent(frame: FrameType, event: str, parent: object) -> None:
                at = frame.f_code.co_name, frame.f_locals.get("pid")
                if event == "return" and at == ("parent_of", pids[-1]) and len(ended) < times:
                    ended.append(int(str(parent)))
                    os.kill(ended[-1], signal.SIGKILL)
                    while os.path.exists(f"/proc/{parent}"):
                        time.sleep(0.001)

            sys.setprofile(end_its_parent)
            try:
                found = orphans(lock.name, [pids[-1]])
            finally:
                sys.setprofile(None)
                for pid in {*pids} - {*ended}:
                    os.kill(pid, signal.SIGKILL)
    assert len(ended) == times
    assert found == ([pids[-1]] if orphaned else [])


def test_a_process_that_has_ended_claims_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    with worker(tmp_path / "lock", *_BELOW):
        assert orphans(f"{tmp_path}/lock", [ended.pid]) == []


@pytest.mark.parametrize("name", [") S 1 1 (", "a\nb", "\xff"])
def test_a_process_may_be_called_what_it_likes(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    os.symlink("/bin/sleep", program)
    with worker(tmp_path / "lock", "sh", "-c", 'echo $$; exec "$0" 60', str(program)) as family:
        assert orphans(f"{tmp_path}/lock", family) == []


@needs_root
def test_where_the_holder_is_process_1_all_that_lost_its_parent_would_seem_to_be_its_own(
    tmp_path: Path,
) -> None:
    look = f"""
import fcntl, os
from storewarden.host.linux import orphans
fd = os.open({str(tmp_path / "lock")!r}, os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print(orphans({str(tmp_path / "lock")!r}, [os.getpid()]))
"""
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look]
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "[1]\n"


@needs_root
def test_an_equal_inode_of_another_file_system_is_another_lock(tmp_path: Path) -> None:
    # Two fresh file systems of memory number their first file alike.
    look = f"""
import fcntl, os, subprocess
from storewarden.host.linux import orphans
for name in "ab":
    place = f"{tmp_path}/{{name}}"
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    open(f"{{place}}/lock", "w").close()
assert os.stat("{tmp_path}/a/lock").st_ino == os.stat("{tmp_path}/b/lock").st_ino
fd = os.open("{tmp_path}/a/lock", os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
own = os.getpid()
print(orphans("{tmp_path}/a/lock", [own]), orphans("{tmp_path}/b/lock", [own]) == [own])
"""
    inside = ["unshare", "--mount", sys.executable, "-c", look]
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "[] True\n"
