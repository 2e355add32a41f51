# SPDX-License-Identifier: MIT
"""Whose processes are alive: real ones, and a table of processes laid out as proc(5) says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helper.child import among_own_processes, in_child, mount, needs_root, take_own_mounts
from storewarden.host import processes_inside, processes_of
from sweeps import leaderless

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux' own")

BUILDER = 30001


def add(
    proc: Path, pid: int, uids: str = "0\t0\t0\t0", state: str = "S (sleeping)", threads: int = 1
) -> None:
    """A process in the table."""
    for number in range(threads):
        (proc / str(pid) / "task" / str(pid + number)).mkdir(parents=True)
    text = f"Name:\tx\nState:\t{state}\nPid:\t{pid}\nUid:\t{uids}\nGid:\t0\t0\t0\t0\n"
    (proc / str(pid) / "status").write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A table with pid 1 and some names that are no pids."""
    add(tmp_path, 1)
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").touch()
    return tmp_path


@pytest.mark.parametrize(
    "uids", ["30001\t0\t0\t0", "0\t30001\t0\t0", "0\t0\t30001\t0", "0\t0\t0\t30001"]
)
def test_a_process_counts_by_each_of_its_four_uids(proc: Path, uids: str) -> None:
    add(proc, 50, uids)
    add(proc, 51, "300010\t3000\t1\t30002")
    assert processes_of([BUILDER], str(proc)) == [50]
    assert processes_of(range(BUILDER, BUILDER + 1), str(proc)) == [50]
    assert processes_of([BUILDER + 7], str(proc)) == []


@pytest.mark.parametrize("state", ["Z (zombie)", "X (dead)"])
def test_a_dead_process_counts_only_while_a_thread_of_it_lives(proc: Path, state: str) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001", state)
    assert processes_of([BUILDER], str(proc)) == []
    add(proc, 60, "30001\t30001\t30001\t30001", state, threads=2)
    assert processes_of([BUILDER], str(proc)) == [60]


@pytest.mark.parametrize(
    "state", ["R (running)", "D (disk sleep)", "T (stopped)", "t (tracing stop)", "I (idle)"]
)
def test_a_process_in_any_other_state_is_alive(proc: Path, state: str) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001", state)
    assert processes_of([BUILDER], str(proc)) == [50]


def test_where_pid_1_is_hidden_nothing_is_known(proc: Path) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001")
    (proc / "1" / "status").unlink()
    assert processes_of([BUILDER], str(proc)) is None


def test_without_a_table_nothing_is_known(tmp_path: Path) -> None:
    assert processes_of([BUILDER], f"{tmp_path}/absent") is None
    assert processes_of([BUILDER], str(tmp_path)) is None


def test_a_process_that_ended_meanwhile_does_not_count(proc: Path) -> None:
    (proc / "70").mkdir()
    assert processes_of([BUILDER], str(proc)) == []


@pytest.mark.parametrize(
    "status",
    [
        "",
        "Name:\tx\n",
        "Uid:\t0\t0\t0\t0\n",
        "State:\tS (sleeping)\n",
        "State:\tS\nUid:\tx\t0\t0\t0\n",
        "rubbish",
    ],
)
def test_a_process_that_cannot_be_understood_makes_all_unknown(proc: Path, status: str) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001")
    (proc / "70").mkdir()
    (proc / "70" / "status").write_text(status)
    assert processes_of([BUILDER], str(proc)) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_process_that_may_not_be_read_makes_all_unknown(proc: Path) -> None:
    add(proc, 70)
    (proc / "70" / "status").chmod(0)
    assert processes_of([BUILDER], str(proc)) is None


def test_a_name_cannot_pass_for_an_owner(proc: Path) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001")
    text = (proc / "50" / "status").read_text()
    (proc / "50" / "status").write_bytes(
        text.replace("Name:\tx", "Name:\tUid:\\n\t7 \xff").encode("latin-1")
    )
    assert processes_of([BUILDER], str(proc)) == [50]


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x1c", "\x85", "\u2028"])
def test_only_a_newline_ends_a_line_of_a_status(proc: Path, end: str) -> None:
    add(proc, 50, "30001\t30001\t30001\t30001")
    text = (proc / "50" / "status").read_text()
    name = f"Name:\tx{end}State:\tZ{end}Uid:\t7\t7\t7\t7"
    (proc / "50" / "status").write_bytes(text.replace("Name:\tx", name).encode())
    assert processes_of([BUILDER], str(proc)) == [50]


def test_a_real_process_is_found_and_a_real_zombie_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in (processes_of([os.geteuid()]) or [])
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert os.path.exists(f"/proc/{child.pid}")
        assert child.pid not in (processes_of([os.geteuid()]) or [child.pid])


def test_a_real_process_whose_main_thread_has_ended_is_found() -> None:
    with leaderless() as pid:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            assert "State:\tZ" in status.read()
        assert pid in (processes_of([os.geteuid()]) or [])


@needs_root
@pytest.mark.parametrize(
    ("way", "groups"), [("invisible", ()), ("ptraceable", ()), ("ptraceable", (0,))]
)
def test_processes_that_are_hidden_are_unknown_and_not_absent(
    way: str, groups: tuple[int, ...]
) -> None:
    def where_others_are_hidden() -> object:
        take_own_mounts()
        mount("-t", "proc", "-o", f"hidepid={way}", "none", "/proc")
        os.setgroups(groups)
        os.setgid(65534)
        os.setuid(65534)
        return [processes_inside("/nowhere", set()), processes_of((1,))]

    assert in_child(where_others_are_hidden) == [None, None]


@needs_root
def test_where_only_what_may_be_traced_is_shown_not_even_the_first_process_sees_all() -> None:
    def first_and_without_that_capability() -> object:
        mount("-t", "proc", "-o", "hidepid=ptraceable", "none", "/proc")
        assert os.path.exists("/proc/1/status")
        return processes_of((65534,))

    assert among_own_processes(first_and_without_that_capability) is None
