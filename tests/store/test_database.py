# SPDX-License-Identifier: MIT
"""Nix's database read as it is, written to by others, and refused where it cannot be believed."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from storewarden.errors import StoreUnreadableError
from storewarden.store.database import (
    DatabaseUnseenError,
    check_census,
    check_schema,
    connect,
    registered,
    sample,
)
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore
from sweeps import still_valid, valid_names


@contextmanager
def writer(place: ThrowawayStore) -> Iterator[sqlite3.Connection]:
    """A connection as Nix has one while it is at work."""
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite", isolation_level=None)) as own:
        yield own


def write_schema(place: ThrowawayStore, text: bytes) -> None:
    with open(f"{place.state_dir}/db/schema", "wb") as file:
        file.write(text)


def test_valid_names_are_all_that_is_registered(place: ThrowawayStore) -> None:
    expected = {place.invent(f"valid-{number}").base_name for number in range(3)}
    assert set(valid_names(place.state_dir, place.store_dir)) == expected


def test_a_path_is_registered_or_not(place: ThrowawayStore) -> None:
    with connect(place.state_dir) as connection:
        yes = registered(connection, place.store_dir, place.invent("valid-0"))
        no = registered(connection, place.store_dir, place.invent("stranger"))
        elsewhere = registered(connection, StoreDir("/other/store"), place.invent("valid-0"))
    assert (yes, no, elsewhere) == (True, False, False)


def test_what_stands_only_in_the_write_ahead_log_is_seen(place: ThrowawayStore) -> None:
    fresh = place.invent("fresh")
    with writer(place) as nix:
        nix.execute("PRAGMA wal_autocheckpoint = 0")
        nix.execute(
            "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?, 'x', 1)",
            (place.path(fresh.base_name),),
        )
        with open(f"{place.state_dir}/db/db.sqlite", "rb") as file:
            assert fresh.base_name.encode() not in file.read()
        assert fresh.base_name in set(valid_names(place.state_dir, place.store_dir))
        with connect(place.state_dir) as connection:
            assert registered(connection, place.store_dir, fresh)


def test_what_is_registered_meanwhile_is_seen_by_the_next_question(place: ThrowawayStore) -> None:
    fresh = place.invent("fresh")
    with connect(place.state_dir) as connection:
        assert not registered(connection, place.store_dir, fresh)
        place.register(fresh)
        assert registered(connection, place.store_dir, fresh)


def test_what_is_not_committed_is_not_valid_yet(place: ThrowawayStore) -> None:
    with writer(place) as nix:
        nix.execute("BEGIN IMMEDIATE")
        nix.execute(
            "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?, 'x', 1)",
            (place.path(place.invent("fresh").base_name),),
        )
        with connect(place.state_dir) as connection:
            assert not registered(connection, place.store_dir, place.invent("fresh"))
        nix.execute("ROLLBACK")


def test_reading_it_changes_nothing_and_cannot_write(place: ThrowawayStore) -> None:
    path = f"{place.state_dir}/db/db.sqlite"
    with open(path, "rb") as file:
        before = file.read(), os.stat(path).st_mtime_ns
    set(valid_names(place.state_dir, place.store_dir))
    with pytest.raises(StoreUnreadableError), connect(place.state_dir) as connection:
        connection.execute("DELETE FROM ValidPaths")
    with open(path, "rb") as file:
        assert (file.read(), os.stat(path).st_mtime_ns) == before
    assert len(set(valid_names(place.state_dir, place.store_dir))) == 3


@pytest.mark.parametrize("text", [b"9", b"11", b"", b"ten", b"\xff\xfe", b"1 0", b"100000" * 20])
def test_another_schema_is_refused(place: ThrowawayStore, text: bytes) -> None:
    write_schema(place, text)
    with pytest.raises(StoreUnreadableError, match="schema"):
        check_schema(place.state_dir)
    with pytest.raises(StoreUnreadableError, match="schema"):
        set(valid_names(place.state_dir, place.store_dir))


def test_a_newline_after_the_schema_is_fine(place: ThrowawayStore) -> None:
    write_schema(place, b"10\n")
    check_schema(place.state_dir)


def test_no_schema_file_is_refused(place: ThrowawayStore) -> None:
    os.unlink(f"{place.state_dir}/db/schema")
    with pytest.raises(StoreUnreadableError, match="no such file"):
        check_schema(place.state_dir)


def test_no_database_is_refused_and_none_is_made(place: ThrowawayStore) -> None:
    os.unlink(f"{place.state_dir}/db/db.sqlite")
    with pytest.raises(StoreUnreadableError, match="no Nix database"):
        set(valid_names(place.state_dir, place.store_dir))
    assert not os.path.exists(f"{place.state_dir}/db/db.sqlite")


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_what_is_no_database_is_refused(place: ThrowawayStore, content: bytes) -> None:
    for suffix in ("-wal", "-shm"):
        if os.path.exists(f"{place.state_dir}/db/db.sqlite{suffix}"):
            os.unlink(f"{place.state_dir}/db/db.sqlite{suffix}")
    with open(f"{place.state_dir}/db/db.sqlite", "wb") as file:
        file.write(content)
    with pytest.raises(StoreUnreadableError, match="cannot be read"):
        set(valid_names(place.state_dir, place.store_dir))


def test_a_database_without_its_table_is_refused(place: ThrowawayStore) -> None:
    with writer(place) as nix:
        nix.execute("ALTER TABLE ValidPaths RENAME TO Renamed")
    with pytest.raises(StoreUnreadableError, match="no such table"):
        set(valid_names(place.state_dir, place.store_dir))


@pytest.mark.slow
def test_a_database_that_stays_locked_is_refused_after_a_while(place: ThrowawayStore) -> None:
    with writer(place) as other:
        other.execute("PRAGMA journal_mode = delete")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnreadableError, match="stayed locked"):
            set(valid_names(place.state_dir, place.store_dir))
        other.execute("ROLLBACK")


def test_a_database_locked_for_a_moment_is_waited_for(place: ThrowawayStore) -> None:
    program = f"""
import sqlite3, sys, time
own = sqlite3.connect({place.state_dir + "/db/db.sqlite"!r}, isolation_level=None)
own.execute("PRAGMA journal_mode = delete")
own.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(0.5)
own.execute("ROLLBACK")
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert len(set(valid_names(place.state_dir, place.store_dir))) == 3


def test_still_valid_asks_again(place: ThrowawayStore) -> None:
    names = [place.invent("valid-0").base_name, place.invent("gone").base_name, "no store path"]
    assert still_valid(place.state_dir, place.store_dir, names) == names[:1]


# Whether a database can be this store's at all: if it is not, everything looks stranded.


@pytest.mark.parametrize(
    ("census", "refusal"),
    [
        ((0, 0, 1), "no valid path at all"),
        ((0, 0, 5), "no valid path at all"),
        ((10, 0, 1), "no path that the database knows"),
        ((10, 10, 101), "too many"),
        ((1000, 1000, 1001), "too many"),
    ],
)
def test_a_database_that_does_not_fit_the_store_is_refused(
    census: tuple[int, int, int], refusal: str
) -> None:
    with pytest.raises(StoreUnreadableError, match=refusal):
        check_census(*census, lambda: 0)


@pytest.mark.parametrize("census", [(1, 1, 100), (1000, 1000, 1000), (3, 1, 0)])
def test_one_that_fits_is_believed(census: tuple[int, int, int]) -> None:
    check_census(*census, _never)


def test_a_new_store_in_which_nothing_is_strange_is_fine() -> None:
    check_census(0, 0, 0, _never)


@pytest.mark.parametrize(("owned", "refused"), [(100, True), (101, False), (201, False)])
def test_what_build_users_own_does_not_count(owned: int, *, refused: bool) -> None:
    if not refused:
        check_census(10, 10, 201, lambda: owned)
        return
    with pytest.raises(StoreUnreadableError, match="101 of 111 store paths of root's"):
        check_census(10, 10, 201, lambda: owned)


def _never() -> int:
    pytest.fail("owners were looked at, where all is well")


def test_a_sample_is_spread_over_the_paths_that_are_there(place: ThrowawayStore) -> None:
    more = [place.invent(f"more-{number}") for number in range(500)]
    place.register(*more)
    with connect(place.state_dir) as connection:
        count, names = sample(connection, place.store_dir)
    assert count == 503
    assert len(names) == len(set(names)) == 64
    assert set(names) <= set(valid_names(place.state_dir, place.store_dir))


def test_where_only_the_daemons_socket_is_to_be_seen_there_may_be_a_database(
    tmp_path: Path,
) -> None:
    (tmp_path / "daemon-socket").mkdir()
    (tmp_path / "daemon-socket/socket").touch()
    with pytest.raises(DatabaseUnseenError, match="only nix-daemon's socket is to be seen here"):
        check_schema(str(tmp_path))
    (tmp_path / "db").mkdir()
    with pytest.raises(StoreUnreadableError, match="is --state-dir right") as refused:
        check_schema(str(tmp_path))
    assert not isinstance(refused.value, DatabaseUnseenError)
