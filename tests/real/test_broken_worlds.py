# SPDX-License-Identifier: MIT
"""Worlds in which Nix, its daemon or its database cannot be trusted: nothing may be removed."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from real import namespace as ns
from real.builds import stranded
from real.rig import (
    Rig,
    continue_daemon,
    kill_daemon,
    picture,
    start_daemon,
    stop_daemon,
    unregistered,
)
from real.warden import AT_ONCE, scan, statuses, warden

World = Callable[[Rig], AbstractContextManager[None]]
BOUND = 30

LOCK_DATABASE = """
import sqlite3, sys
database = sqlite3.connect("/nix/var/nix/db/db.sqlite")
# In WAL mode this alone keeps readers out as well.
database.execute("PRAGMA locking_mode = EXCLUSIVE")
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def daemon_killed(rig: Rig) -> Iterator[None]:
    kill_daemon(rig)
    assert os.path.exists(f"{rig.state}/daemon-socket/socket")
    yield
    start_daemon(rig)


@contextmanager
def daemon_stopped(rig: Rig) -> Iterator[None]:
    stop_daemon(rig)
    yield
    continue_daemon(rig)


@contextmanager
def saved_database(rig: Rig) -> Iterator[str]:
    """The database's directory, put back afterwards as it was."""
    place = f"{rig.state}/db"
    shutil.copytree(place, f"{place}.saved")
    yield place
    shutil.rmtree(place)
    os.rename(f"{place}.saved", place)


@contextmanager
def database_missing(rig: Rig) -> Iterator[None]:
    with saved_database(rig) as place:
        for name in os.listdir(place):
            if name.startswith("db.sqlite"):
                os.unlink(f"{place}/{name}")
        yield


@contextmanager
def database_corrupt(rig: Rig) -> Iterator[None]:
    with saved_database(rig) as place:
        with open(f"{place}/db.sqlite", "r+b") as file:
            file.write(b"garbage! " * 2000)
        yield


@contextmanager
def database_locked(rig: Rig) -> Iterator[None]:
    with ns.holding(rig.namespace, ["python3", "-c", LOCK_DATABASE]):
        yield


def schema(version: int) -> World:
    @contextmanager
    def world(rig: Rig) -> Iterator[None]:
        with saved_database(rig) as place:
            with open(f"{place}/schema", "w", encoding="ascii") as file:
                file.write(str(version))
            yield
            assert ns.read(f"{place}/schema") == str(version), "the database was upgraded"

    return world


WORLDS = {
    "the daemon was killed": daemon_killed,
    "the daemon hangs": daemon_stopped,
    "the database is missing": database_missing,
    "the database is corrupt": database_corrupt,
    "the database is locked": database_locked,
    "the schema is older": schema(9),
    "the schema is newer": schema(11),
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [("root", "--yes"), ("nobody", "--dry-run")])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS.keys())
def test_in_a_broken_world_nothing_is_removed_and_one_line_says_why(
    rig: Rig, world: World, asked: tuple[str, str]
) -> None:
    build = stranded(rig, "debris")
    before = picture(rig.store)
    user, word = asked
    with world(rig):
        done = warden(rig, "scan", word, *AT_ONCE, user=user, seconds=BOUND)
        assert done.returncode == 3, done.stdout + done.stderr
        assert_says_one_error(done.stderr)
        assert picture(rig.store) == before
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")


def test_beside_a_full_store_an_empty_database_is_not_believed(rig: Rig) -> None:
    build = stranded(rig, "debris")
    files = [f"{rig.base}/scratch/file{number}" for number in range(30)]
    for name in files:
        with open(name, "w", encoding="ascii") as file:
            file.write(name)
    assert ns.run(rig.namespace, ["nix-store", "--add", *files]).returncode == 0
    before = picture(rig.store)
    with saved_database(rig) as place:
        with closing(sqlite3.connect(f"{place}/db.sqlite")) as database, database:
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute("DELETE FROM ValidPaths")
        done = warden(rig, "scan", "--yes", *AT_ONCE, seconds=BOUND)
        assert done.returncode == 3, done.stdout + done.stderr
        assert_says_one_error(done.stderr)
        assert picture(rig.store) == before
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")


@pytest.mark.parametrize("asked", [("root", "--yes"), ("nobody", "--dry-run")])
def test_without_nix_nothing_is_removed(rig: Rig, asked: tuple[str, str]) -> None:
    build = stranded(rig, "debris")
    user, word = asked
    done = warden(rig, "scan", word, *AT_ONCE, "--nix", "/nonexistent/nix", user=user)
    assert done.returncode == 3, done.stdout + done.stderr
    assert_says_one_error(done.stderr)
    assert unregistered(rig) == build.entries


def test_where_there_is_no_daemon_at_all_root_repairs_by_a_nix_of_its_own(rig: Rig) -> None:
    build = stranded(rig, "debris")
    kill_daemon(rig)
    os.unlink(f"{rig.state}/daemon-socket/socket")
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")


def test_while_the_collector_works_debris_is_kept_and_removed_after(rig: Rig) -> None:
    build = stranded(rig, "debris")
    with ns.flocked(rig.namespace, "/nix/var/nix/gc.lock"):
        done = warden(rig, "scan", "--yes", *AT_ONCE, seconds=BOUND)
        assert done.returncode in {0, 5}, done.stdout + done.stderr
        assert "collector" in done.stdout
        assert unregistered(rig) == build.entries
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")


def assert_says_one_error(stderr: str) -> None:
    """One line of error, last; before it at most notes of what this user cannot see."""
    lines = stderr.splitlines()
    assert all(line.startswith("storewarden: ") for line in lines), stderr
    assert [line for line in lines if line.startswith("storewarden: error: ")] == lines[-1:]
