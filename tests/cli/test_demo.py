# SPDX-License-Identifier: MIT
"""The demo shows all of it on a store of its own, and leaves nothing behind."""

import os
import re
from pathlib import Path

import pytest

from command import PROGRAM, run
from storewarden.cli.demo import demo
from storewarden.store.entries import EntryKind


@pytest.fixture
def said(tmp_path: Path) -> str:
    """What it says, having ended well and cleaned up."""
    done = run([*PROGRAM, "demo"], TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == []
    return done.stdout


def test_it_finds_debris_of_every_kind(said: str) -> None:
    kinds = {
        "lock": "lock file",
        "output-of-root": "output-of-root" if os.geteuid() == 0 else "output",
    }
    for kind in EntryKind:
        assert re.search(rf"^    {kinds.get(kind, kind)}( of |,|$)", said, re.MULTILINE), kind


def test_it_removes_what_is_dead_and_keeps_what_is_alive(said: str) -> None:
    removed = re.findall(r"^removed: (\S+)", said, re.MULTILINE)
    for name in ("interrupted-1.0", "two-outputs-2.0", "two-outputs-2.0-dev", "4.0.lock"):
        assert any(path.endswith(f"-{name}") for path in removed), name
    assert not any("-live-3.0" in path for path in removed)
    assert "its lock is held" in said


def test_it_shows_a_record_that_holds(said: str) -> None:
    records = len(re.findall(r"^ +\d+  \S+Z  (?:intent|result) ", said, re.MULTILINE))
    assert f"{records} records in 1 file, all in order" in said


def test_it_is_safe_to_run_twice_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    said: list[str] = []
    inner: list[int] = []

    def say(line: str) -> None:
        if not said:
            inner.append(demo(lambda _: None))
        said.append(line)

    assert demo(say) == 0
    assert inner == [0]
