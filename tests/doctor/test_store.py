# SPDX-License-Identifier: MIT
"""Directories, file systems and databases; and what it means how they are."""

from dataclasses import replace
from pathlib import Path

import pytest

from storewarden.config import Config
from storewarden.doctor import diagnose
from storewarden.doctor.builds import Building
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Severity, Unknown
from storewarden.doctor.service import Service
from storewarden.doctor.store import (
    Database,
    Room,
    Storage,
    StoreMount,
    look,
    look_at_database,
    look_at_mount,
    look_at_rooms,
    wholly_read_only,
)
from storewarden.store.paths import StoreDir
from storewarden.store.store import Known
from storewarden.throwaway import ThrowawayStore
from well import APART, GIB, IDLE, NOTE, OK, PROBLEM, UNKNOWN, WELL, but, named, severities

MIB = 1024**2
READ_ONLY = StoreMount("/nix/store", "ext4", read_only=True, wholly=Known.NO, unfit="")
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
    assert isinstance(mount, StoreMount)
    assert not mount.read_only
    assert str(tmp_path).startswith(mount.point)


def test_a_directory_is_listed_or_absent_or_closed(tmp_path: Path) -> None:
    def listed(directory: str) -> Known:
        store_dir = StoreDir(directory)
        config = Config(store_dir=store_dir, state_dir=str(tmp_path))
        return look(replace(WELL, config=config)).listed

    assert listed(str(tmp_path)) is Known.YES
    assert listed(f"{tmp_path}/absent") is Known.NO
    (tmp_path / "file").write_text("")
    assert listed(f"{tmp_path}/file") is Known.UNKNOWN


def test_places_on_one_file_system_share_its_room(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    rooms, roomless = look_at_rooms({"store": f"{tmp_path}/a", "log": f"{tmp_path}/not/yet/there"})
    assert roomless == ()
    [room] = rooms
    assert room.places == ("store", "log")
    assert room.path == f"{tmp_path}/a"
    assert 0 <= room.free <= room.size


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


@pytest.mark.parametrize(
    ("mount", "service", "severity"),
    [
        (READ_ONLY, {}, OK),
        (READ_ONLY, IDLE, NOTE),
        (replace(READ_ONLY, wholly=Known.YES), {}, PROBLEM),
        (replace(READ_ONLY, unfit="it is on nfs"), {}, PROBLEM),
        (replace(READ_ONLY, kind="", unfit="it cannot be told"), {}, UNKNOWN),
        (Unknown("the mounts cannot be read"), {}, UNKNOWN),
    ],
)
def test_a_store_is_writable_or_made_so_or_neither(
    mount: StoreMount | Unknown, service: dict[str, object], severity: Severity
) -> None:
    patient = but(but(WELL, Storage, mount=mount), Service, **service)
    assert named(patient, "store").severity is severity


def test_where_root_may_not_mount_a_read_only_store_is_a_problem() -> None:
    patient = but(but(WELL, Storage, mount=READ_ONLY), Building, namespaces=Known.NO)
    patient = but(patient, Service, **IDLE)
    assert named(patient, "store").severity is PROBLEM


def test_in_a_sandbox_a_read_only_store_is_as_it_should_be() -> None:
    patient = but(but(WELL, Storage, mount=READ_ONLY), Installation, daemon=APART)
    assert named(patient, "store").severity is NOTE
    assert not [one for one in diagnose(patient) if one.name.startswith("room")]


@pytest.mark.parametrize(
    ("places", "free", "severity"),
    [
        (("store",), 600 * MIB, NOTE),
        (("store",), 400 * MIB, PROBLEM),
        (("log",), 400 * MIB, NOTE),
        (("log",), MIB // 2, PROBLEM),
        (("log", "store"), 400 * MIB, PROBLEM),
        (("state",), 50 * GIB, OK),
    ],
)
def test_how_much_room_is_too_little_depends_on_what_needs_it(
    places: tuple[str, ...], free: int, severity: Severity
) -> None:
    room = Room(places, "/nix", 100 * GIB, free, 0, 0)
    assert named(but(WELL, Storage, rooms=(room,)), f"room-{places[0]}").severity is severity


def test_a_disk_without_inodes_is_full_too() -> None:
    room = Room(("state",), "/nix/var/nix", 100 * GIB, 50 * GIB, 10**6, 3)
    assert severities(but(WELL, Storage, rooms=(room,)), PROBLEM) == {"inodes-state"}


def test_what_cannot_be_told_of_a_disk_is_unknown() -> None:
    patient = but(WELL, Storage, rooms=(), roomless=(("store", "there was no answer within 10 s"),))
    assert named(patient, "room-store").severity is UNKNOWN


@pytest.mark.parametrize(
    ("database", "severity"),
    [
        (Database(unseen="this user cannot open it"), UNKNOWN),
        (Database(broken="it is no database"), PROBLEM),
        (Unknown("there was no answer within 10 s"), UNKNOWN),
    ],
)
def test_a_database_is_read_or_unseen_or_broken(
    database: Database | Unknown, severity: Severity
) -> None:
    assert named(but(WELL, Storage, database=database), "database").severity is severity
