# SPDX-License-Identifier: MIT
"""What wakes the service, with real directories, threads, signals and a real kernel."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.daemon.watch import (
    INOTIFY,
    POLLING,
    Changed,
    Closed,
    Died,
    DirectoryChanged,
    Event,
    Inbox,
    Overflowed,
    Signalled,
    how_to_watch,
    inbox,
    watching,
)

needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


def wait_for(box: Inbox, *expected: Event) -> set[Event]:
    """All that happened until all of these have, for at most ten seconds."""
    happened: set[Event] = set()
    end = time.monotonic() + 10
    while not happened.issuperset(expected):
        assert time.monotonic() < end, f"of {expected} only {happened} happened"
        happened.update(box.wait(1))
    return happened


def wait_for_names(box: Inbox, *names: str) -> set[Event]:
    return wait_for(box, *map(Changed, names))


def wait_for_new(box: Inbox, *names: str) -> set[Event]:
    return wait_for(box, *(Changed(name, made=True) for name in names))


def test_an_event_is_given_once_however_often_it_is_left() -> None:
    with inbox() as box:
        box.post(Changed("a"), Changed("b"))
        box.post(Changed("b"), DirectoryChanged(), Closed("c.lock"))
        assert box.wait(30) == [Changed("a"), Changed("b"), DirectoryChanged(), Closed("c.lock")]
        assert box.wait(0) == []


def test_a_wait_ends_with_the_first_event_of_another_thread() -> None:
    with inbox() as box:
        other = threading.Timer(0.05, box.post, [Overflowed()])
        began = time.monotonic()
        other.start()
        assert box.wait(30) == [Overflowed()]
        assert time.monotonic() - began < 10
        other.join()


def test_a_wait_ends_when_its_time_is_over() -> None:
    with inbox() as box:
        assert box.wait(-1) == []
        assert box.wait(0.01) == []


def test_signals_come_in_as_events_and_do_nothing_else() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with inbox(signal.SIGUSR1, signal.SIGHUP) as box:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGHUP)
        assert set(box.wait(30)) == {Signalled(signal.SIGUSR1), Signalled(signal.SIGHUP)}
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_waits_can_be_asked_and_still_ends_the_next_wait() -> None:
    with inbox(signal.SIGUSR1) as box:
        assert not box.holds([Signalled(signal.SIGUSR1)])
        signal.raise_signal(signal.SIGUSR1)
        assert box.holds([Signalled(signal.SIGUSR1)])
        assert not box.holds([Signalled(signal.SIGHUP)])
        assert box.wait(30) == [Signalled(signal.SIGUSR1)]
        assert not box.holds([Signalled(signal.SIGUSR1)])


def test_a_flood_of_events_neither_blocks_nor_loses_any() -> None:
    with inbox() as box:
        for number in range(100_000):
            box.post(Changed(str(number)))
            if number % 10 == 0:
                box.wait(30)
        box.post(Changed("last"))
        assert Changed("last") in box.wait(30)


def test_a_flood_of_signals_does_not_block() -> None:
    with inbox(signal.SIGUSR1) as box:
        for _ in range(70_000):  # more than a pipe holds
            signal.raise_signal(signal.SIGUSR1)
        box.post(Changed("a"))
        assert set(box.wait(30)) == {Changed("a"), Signalled(signal.SIGUSR1)}


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_death_of_a_process_that_is_minded_ends_a_wait_once() -> None:
    with inbox() as box, sleeping() as first, sleeping() as second:
        box.mind({first.pid, second.pid})
        assert box.wait(0) == []
        first.kill()
        assert box.wait(30) == [Died(first.pid)]
        assert box.wait(0) == []
        box.mind(())
        second.kill()
        second.wait()
        assert box.wait(0) == [], "nobody minds it any more"


def test_what_is_dead_or_too_many_to_mind_is_left_to_the_clock() -> None:
    with inbox() as box, subprocess.Popen(["true"]) as dead, sleeping() as alive:
        dead.wait()
        box.mind({dead.pid, alive.pid})
        assert set(box.minded) == {alive.pid}
        box.mind(range(1, 100_000))
        assert len(box.minded) <= 256


@needs_inotify
def test_what_moves_away_holds_nothing_back_that_comes_after(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "goes").touch()
    with inbox() as box, watching(str(tmp_path / "seen"), INOTIFY, 1, box):
        began = time.monotonic()
        (tmp_path / "seen" / "goes").rename(tmp_path / "gone")
        (tmp_path / "seen" / "next").touch()
        wait_for_new(box, "next")
        assert time.monotonic() - began < 0.4, "watchdog's own wait for the other half is 0.5 s"


@needs_inotify
def test_what_is_made_moved_and_removed_is_told_by_name(tmp_path: Path) -> None:
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box):
        (tmp_path / "directory").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        wait_for_new(box, "directory", "file", "link")
        (tmp_path / "file").rename(tmp_path / "moved")
        wait_for_names(box, "file", "moved")
        (tmp_path / "directory").rmdir()
        wait_for_names(box, "directory")


@needs_inotify
@pytest.mark.parametrize("how", ["let go", "killed"])
def test_a_lock_tells_when_its_holder_lets_go_of_it_or_is_killed(tmp_path: Path, how: str) -> None:
    lock = tmp_path / "x.lock"
    lock.touch()
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box), holder(lock) as process:
        assert box.wait(0) == []
        if how == "killed":
            process.kill()
        else:
            process.communicate()
        assert wait_for(box, Closed("x.lock")) == {Closed("x.lock")}


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
        wait_for_new(box, "inside", odd)


@needs_inotify
def test_nothing_below_the_directory_is_watched(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    with inbox() as box, watching(str(tmp_path), INOTIFY, 1, box):
        for number in range(100):
            (tmp_path / "output" / str(number)).touch()
            (tmp_path / "output" / str(number)).read_bytes()
        list(tmp_path.iterdir())
        (tmp_path / "last").touch()
        assert wait_for_new(box, "last") <= {Changed("last", made=True), Closed("last")}


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
        assert box.wait(0.3) == []
        (tmp_path / "output").mkdir()
        wait_for(box, DirectoryChanged())


def test_polling_looks_once_more_at_what_changed_within_the_grain_of_the_clock(
    tmp_path: Path,
) -> None:
    with inbox() as box, watching(str(tmp_path), POLLING, 0.05, box):
        (tmp_path / "first").mkdir()
        wait_for(box, DirectoryChanged())
        seen = tmp_path.stat().st_mtime_ns
        (tmp_path / "second").mkdir()
        os.utime(tmp_path, ns=(seen, seen))  # as a clock too coarse to tell them apart would
        wait_for(box, DirectoryChanged())


def test_polling_outlives_a_directory_that_is_away_for_a_while(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with inbox() as box, watching(str(store), POLLING, 0.05, box):
        store.mkdir()
        wait_for(box, DirectoryChanged())
        store.rmdir()
        wait_for(box, DirectoryChanged())


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
