# SPDX-License-Identifier: MIT
"""The demo shows all of it on a store of its own, and leaves nothing behind."""

import os
import re
from pathlib import Path

import pytest

from command import PROGRAM, ROOT, run, typed
from storewarden.cli.demo import demo
from sweeps import SEES_LOCKS


@pytest.fixture
def said(tmp_path: Path) -> str:
    """What it says, having ended well and cleaned up."""
    done = run([*PROGRAM, "demo"], TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == []
    return done.stdout


def test_a_build_fails_on_debris_and_succeeds_once_that_is_gone(said: str) -> None:
    failed, scanned, built, *_ = said.split("\n$ ")[1:]
    assert failed.startswith("build hello\ncp: ")
    assert "ermission denied" in failed
    assert scanned.startswith(f"storewarden scan --yes\n{17 if ROOT else 16} found in ")
    assert re.match(r"build hello\nbuilt [0-9a-z]{32}-hello-2.12\n", built)


def test_it_removes_what_is_dead_and_keeps_what_is_alive_whoever_runs_it(said: str) -> None:
    removed = set(re.findall(r"  removed [0-9a-z]{32}-(\S+)", said))
    outputs = {"hello-2.12", "two-outputs-2.0", "two-outputs-2.0-dev"}
    locks = {"hello-2.12.drv.out", "two-outputs-2.0.drv.out", "two-outputs-2.0.drv.dev"}
    assert removed == outputs | {f"{name}.lock" for name in (*locks, "substituted-4.0")}
    kept = "" if SEES_LOCKS else ", 2 kept"
    assert re.search(rf"^7 removed \(\S+ KiB freed\){kept}$", said, re.MULTILINE)
    assert "its lock is held" in said


def test_it_finds_what_is_only_reported_of_every_kind(said: str) -> None:
    (reported,) = re.findall(r" only reported: ((?:.+\n? {5}?)+)", said)
    for kind in ("check result", "chroot", "foreign entry", "missing path", "old copy"):
        assert f"1 {kind}" in " ".join(reported.split())


def test_it_shows_a_record_that_holds_and_fits_two_screens(said: str) -> None:
    assert "14 records in 1 file, all in order" in said
    assert len(said.splitlines()) < (50 if SEES_LOCKS else 56)
    assert "sudo" not in said
    look = typed("storewarden scan --dry-run")
    assert said.splitlines()[-1] == f"Your own store: {look} looks, and changes nothing."


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
