# SPDX-License-Identifier: MIT
"""The kernel's table of locks: who holds a flock, and who waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storewarden.host.linux import flocks
from storewarden.host.tables import Flock, exclusive_holders
from sweeps import holding, needs_lock_table

TABLE = """\
1: FLOCK  ADVISORY  WRITE 101 00:2d:11 0 EOF
1: -> FLOCK  ADVISORY  WRITE 102 00:2d:11 0 EOF
2: FLOCK  ADVISORY  READ 103 00:2d:12 0 EOF
3: POSIX  ADVISORY  WRITE 104 00:2d:13 128 128
4: OFDLCK ADVISORY  WRITE -1 00:2d:14 0 EOF
5: LEASE  ACTIVE    READ  105 00:2d:15 0 EOF
"""
_WAIT = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print("trying", flush=True)
fcntl.flock(fd, fcntl.LOCK_EX)
"""


def test_only_flocks_are_read_held_ones_and_awaited_ones(tmp_path: Path) -> None:
    table = tmp_path / "locks"
    table.write_text(TABLE)
    seen = flocks(str(table))
    assert seen == (
        Flock(101, 11, exclusive=True, waits=False),
        Flock(102, 11, exclusive=True, waits=True),
        Flock(103, 12, exclusive=False, waits=False),
    )
    assert exclusive_holders(seen) == {11: 101}


@pytest.mark.parametrize("text", ["1: FLOCK", "1: FLOCK A WRITE x 00:2d:1 0 EOF", "\n", "\xff"])
def test_a_table_that_does_not_read_is_none_at_all(tmp_path: Path, text: str) -> None:
    table = tmp_path / "locks"
    table.write_text(text, encoding="latin-1")
    assert flocks(str(table)) is None


def test_no_table_is_unknown_and_an_empty_one_is_not(tmp_path: Path) -> None:
    assert flocks(f"{tmp_path}/none") is None
    (tmp_path / "locks").touch()
    assert flocks(f"{tmp_path}/locks") == ()


@needs_lock_table
def test_a_real_holder_and_one_who_waits_in_the_kernel_are_told_apart(tmp_path: Path) -> None:
    path = f"{tmp_path}/file"
    with holding(path) as holder:
        inode = os.stat(path).st_ino
        command = [sys.executable, "-I", "-S", "-c", _WAIT, path]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as waiter:
            assert waiter.stdout is not None
            assert waiter.stdout.readline() == b"trying\n"
            end = time.monotonic() + 10
            seen: set[Flock] = set()
            while len(seen) < 2 and time.monotonic() < end:
                seen = {lock for lock in flocks() or () if lock.inode == inode}
            waiter.kill()
    assert seen == {
        Flock(holder, inode, exclusive=True, waits=False),
        Flock(waiter.pid, inode, exclusive=True, waits=True),
    }
