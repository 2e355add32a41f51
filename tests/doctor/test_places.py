# SPDX-License-Identifier: MIT
"""Directories, file systems and databases as the doctor sees them."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from command import ROOT
from storewarden.doctor.facts import Database, Mount
from storewarden.doctor.places import (
    exists,
    listable,
    look_at_database,
    look_at_mount,
    look_at_rooms,
    wholly_read_only,
)
from storewarden.store.fact import Known
from storewarden.store.paths import StoreDir
from storewarden.throwaway import ThrowawayStore

TABLE = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 254:1 /nix/store /nix/store ro,relatime shared:1 - ext4 /dev/vda rw,discard
31 22 7:0 / /mnt ro - squashfs /dev/loop0 ro
32 22 0:40 / /twice rw - tmpfs none ro
33 22 0:41 / /twice rw - tmpfs none rw,size=4k
"""


@pytest.mark.parametrize(
    ("point", "known"),
    [("/", Known.NO), ("/nix/store", Known.NO), ("/mnt", Known.YES), ("/twice", Known.NO)],
)
def test_a_mount_that_is_read_only_is_not_a_file_system_that_is(
    tmp_path: Path, point: str, known: Known
) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    assert wholly_read_only(point, f"{tmp_path}/mountinfo") is known


def test_without_the_table_or_the_mount_it_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    assert wholly_read_only("/elsewhere", f"{tmp_path}/mountinfo") is Known.UNKNOWN
    assert wholly_read_only("/", f"{tmp_path}/absent") is Known.UNKNOWN


def test_how_a_directory_is_mounted_is_seen(tmp_path: Path) -> None:
    mount = look_at_mount(str(tmp_path))
    assert isinstance(mount, Mount)
    assert not mount.read_only
    assert str(tmp_path).startswith(mount.point)


def test_a_directory_is_listed_or_absent_or_closed(tmp_path: Path) -> None:
    assert listable(str(tmp_path)) is Known.YES
    assert listable(f"{tmp_path}/absent") is Known.NO
    (tmp_path / "file").write_text("")
    assert listable(f"{tmp_path}/file") is Known.UNKNOWN


def test_a_link_to_nothing_is_there(tmp_path: Path) -> None:
    os.symlink("nowhere", f"{tmp_path}/link")
    assert exists(f"{tmp_path}/link") is Known.YES
    assert exists(f"{tmp_path}/absent") is Known.NO


def test_places_on_one_file_system_share_its_room(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rooms, roomless = look_at_rooms({"store": f"{tmp_path}/a", "log": f"{tmp_path}/not/yet/there"})
    assert roomless == ()
    [room] = rooms
    assert room.places == ("store", "log")
    assert room.path == f"{tmp_path}/a"
    assert 0 <= room.free <= room.size


@pytest.mark.skipif(ROOT, reason="root may look everywhere")
def test_a_place_that_may_not_be_looked_at_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "closed/in").mkdir(parents=True)
    os.chmod(tmp_path / "closed", 0)
    assert exists(f"{tmp_path}/closed/in") is Known.UNKNOWN
    os.chmod(tmp_path / "closed", 0o700)


def execute(place: ThrowawayStore, script: str) -> None:
    with closing(sqlite3.connect(f"{place.state_dir}/db/db.sqlite")) as database:
        database.executescript(script)


@pytest.mark.parametrize("table", ["Realisations", "BuildTraceV3"])
def test_recorded_outputs_are_counted_in_either_table(place: ThrowawayStore, table: str) -> None:
    execute(place, f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id INTEGER)")
    assert look_at_database(place.state_dir, place.store_dir) == Database(realisations=0)
    execute(place, f"INSERT INTO {table} VALUES (1), (2)")  # noqa: S608 - the test's own name
    assert look_at_database(place.state_dir, place.store_dir) == Database(realisations=2)


def test_a_database_that_is_none_is_told_as_broken(place: ThrowawayStore) -> None:
    with open(f"{place.state_dir}/db/db.sqlite", "wb") as file:
        file.write(b"not a database, for more than one page of it" * 200)
    assert "cannot be read" in look_at_database(place.state_dir, place.store_dir).broken


def test_a_schema_of_another_number_is_told_as_broken(place: ThrowawayStore) -> None:
    with open(f"{place.state_dir}/db/schema", "w", encoding="ascii") as file:
        file.write("11")
    assert "'11'" in look_at_database(place.state_dir, place.store_dir).broken


def test_where_only_the_socket_is_seen_the_database_is_unseen(tmp_path: Path) -> None:
    (tmp_path / "daemon-socket").mkdir()
    (tmp_path / "daemon-socket/socket").write_text("")
    assert look_at_database(str(tmp_path), StoreDir("/nix/store")).unseen
