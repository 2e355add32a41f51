# SPDX-License-Identifier: MIT
"""What wakes the service, with real directories and a real kernel."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.daemon.inbox import Inbox, News, inbox
from storewarden.daemon.wakes import INOTIFY, POLLING, how_to_watch, watching

needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


def wait_for(box: Inbox, wanted: Callable[[News], object]) -> News:
    """The first news that is wanted, within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        box.wait(1)
        news = box.take()
        if wanted(news):
            return news
    raise AssertionError("it did not come")


def names_told(box: Inbox, wanted: set[str]) -> None:
    told: set[str] = set()
    while not told >= wanted:
        told |= wait_for(box, lambda news: news.names).names


@needs_inotify
def test_what_is_made_moved_and_removed_is_told_by_name(tmp_path: Path) -> None:
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box):
        (tmp_path / "directory").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        names_told(box, {"directory", "file", "link"})
        (tmp_path / "file").rename(tmp_path / "moved")
        names_told(box, {"file", "moved"})
        (tmp_path / "directory").rmdir()
        names_told(box, {"directory"})


@needs_inotify
@pytest.mark.parametrize("how", ["let go", "killed"])
def test_a_lock_tells_when_its_holder_lets_go_of_it_or_is_killed(tmp_path: Path, how: str) -> None:
    lock = tmp_path / "x.lock"
    lock.touch()
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box), holder(lock) as process:
        assert not box.take().closed
        if how == "killed":
            process.kill()
        else:
            process.communicate()
        assert wait_for(box, lambda news: news.closed).closed == {"x.lock"}


@contextmanager
def holder(lock: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds that lock, as Nix does, until it is told to end."""
    hold = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.flock(f,2); print(flush=True)"
    words = [sys.executable, "-c", f"{hold}; sys.stdin.read()", str(lock)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@needs_inotify
def test_what_comes_from_elsewhere_and_odd_names_are_told(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "outside").mkdir()
    odd = os.fsdecode(b"odd\n\xff name")
    with inbox() as box, watching(str(store), INOTIFY, 1, box):
        (tmp_path / "outside").rename(store / "inside")
        (store / odd).touch()
        names_told(box, {"inside", odd})


@needs_inotify
def test_nothing_below_the_directory_is_watched(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box):
        for number in range(100):
            (tmp_path / "output" / str(number)).touch()
            (tmp_path / "output" / str(number)).read_bytes()
        list(tmp_path.iterdir())
        (tmp_path / "last").touch()
        assert wait_for(box, lambda news: news.names).names == {"last"}


@needs_inotify
def test_a_directory_that_is_replaced_ends_the_watch(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with inbox() as box, watching(str(store), INOTIFY, 1, box) as watched:
        assert watched.lasts()
        store.rename(tmp_path / "old")
        assert not watched.lasts()
        store.mkdir()
        assert not watched.lasts()


def test_polling_tells_of_a_change_and_of_nothing_else(tmp_path: Path) -> None:
    os.utime(tmp_path, (1, 1))
    with inbox() as box, watching(str(tmp_path), POLLING, 0.05, box):
        time.sleep(0.3)
        assert box.take() == News()
        (tmp_path / "output").mkdir()
        wait_for(box, lambda news: news.changed)


def test_polling_looks_once_more_at_what_changed_within_the_grain_of_the_clock(
    tmp_path: Path,
) -> None:
    with inbox() as box, watching(str(tmp_path), POLLING, 0.05, box):
        (tmp_path / "first").mkdir()
        wait_for(box, lambda news: news.changed)
        seen = tmp_path.stat().st_mtime_ns
        (tmp_path / "second").mkdir()
        os.utime(tmp_path, ns=(seen, seen))  # as a clock too coarse to tell them apart would
        wait_for(box, lambda news: news.changed)


def test_polling_outlives_a_directory_that_is_away_for_a_while(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with inbox() as box, watching(str(store), POLLING, 0.05, box):
        store.mkdir()
        wait_for(box, lambda news: news.changed)
        store.rmdir()
        wait_for(box, lambda news: news.changed)


@needs_inotify
def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with inbox() as box, pytest.raises(FileNotFoundError), watching(absent, INOTIFY, 1, box):
        pass


@needs_root
@pytest.mark.parametrize(("kind", "how"), [("tmpfs", INOTIFY), ("overlay", POLLING)])
def test_inotify_is_trusted_only_where_it_tells_all(tmp_path: Path, kind: str, how: str) -> None:
    def inside() -> str:
        take_own_mounts()
        mount("-t", "tmpfs", "tmpfs", str(tmp_path))
        for name in ("lower", "upper", "work", "store"):
            os.mkdir(f"{tmp_path}/{name}")
        if kind == "overlay":
            layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
            mount("-t", "overlay", "-o", layers, "overlay", f"{tmp_path}/store")
        return how_to_watch(f"{tmp_path}/store")

    assert in_child(inside) == how
