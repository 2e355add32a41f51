# SPDX-License-Identifier: MIT
"""Real processes that use a place, in each of the ways that Nix counts as a root."""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storewarden.explain.entry import uses_of

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/environ"), reason="this system has no /proc to look into"
)
_SAY = "import os, sys\nkept = {}\nprint('ready', flush=True)\nsys.stdin.read()\n"


@contextmanager
def process(kept: str = "None", **options: object) -> Iterator[int]:
    """A Python that has evaluated `kept` and waits; gives its pid."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-I", "-S", "-c", _SAY.format(kept)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, **options) as child:  # type: ignore[call-overload]
        assert child.stdout.readline() == b"ready\n"
        yield child.pid


def ways(place: Path, pid: int) -> tuple[str, ...]:
    """How that process uses the place."""
    found = uses_of(str(place), (place.stat().st_dev, place.stat().st_ino)).seen
    return next((use.ways for use in found if use.process.pid == pid), ())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file, called as a store path may be."""
    made = tmp_path / "hash-thing+1.0"
    made.mkdir()
    (made / "file").write_text("x" * mmap.PAGESIZE)
    return made


def test_a_directory_that_is_worked_in_is_used(place: Path) -> None:
    with process(cwd=place) as pid:
        assert ways(place, pid) == ("works in it",)


def test_an_open_file_is_used(place: Path) -> None:
    with process(f"open('{place}/file')") as pid:
        assert ways(place, pid) == ("has files in it open",)


def test_a_mapped_file_is_used_when_it_is_no_longer_open(place: Path) -> None:
    kept = f"[f := open('{place}/file'), __import__('mmap').mmap(f.fileno(), 0, prot=1), f.close()]"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _SAY.format(kept)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert "has files of it mapped" in ways(place, child.pid)


def test_a_program_that_runs_from_it_is_used(place: Path) -> None:
    program = shutil.copy(shutil.which("sleep") or "", place / "sleep")
    with subprocess.Popen([program, "300"]) as child:
        try:
            assert "runs a program from it" in ways(place, child.pid)
        finally:
            child.kill()


def test_the_environment_names_it_by_its_whole_name_alone(place: Path) -> None:
    environment = {"out": f"{place}/bin", "other": f"{place}.drv", "third": f"{place}x"}
    with process(env=environment) as pid:
        assert ways(place, pid) == ("has it in its environment (out)",)


def test_who_does_not_use_it_and_this_process_are_left_out(place: Path) -> None:
    with open(place / "file", encoding="ascii"), process() as pid:
        found = uses_of(str(place))
        assert ways(place, pid) == ()
    assert os.getpid() not in {use.process.pid for use in found.seen}


def test_where_processes_cannot_be_seen_their_number_is_unknown(tmp_path: Path) -> None:
    assert uses_of("/nix/store/x", proc=f"{tmp_path}/none").unseen is None
    (tmp_path / "7").mkdir()
    assert uses_of("/nix/store/x", proc=str(tmp_path)).unseen is None, "pid 1 is not to be seen"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look on from another user's place")
def test_processes_that_may_not_be_looked_into_are_counted(place: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from storewarden.explain.entry import"
        " uses_of; print(uses_of(sys.argv[2]).unseen)"
    )
    source = os.path.dirname(os.path.dirname(sys.modules["storewarden"].__file__ or ""))
    with process(cwd=place):
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", script, source, str(place)],
            capture_output=True,
            text=True,
            user=65534,
            check=False,
        )
    if done.returncode != 0:
        pytest.skip(f"another user cannot run the sources here: {done.stderr[-80:]}")
    assert int(done.stdout) > 0
