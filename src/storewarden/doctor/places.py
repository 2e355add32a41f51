# SPDX-License-Identifier: MIT
"""The file systems that the store, its state and the audit log are on, and the database."""

import os
from collections.abc import Mapping

from storewarden import host
from storewarden.doctor.bounded import within
from storewarden.doctor.facts import Database, Mount, Room, Unknown
from storewarden.errors import StoreUnreadableError
from storewarden.misplaced import misplaced
from storewarden.store import database
from storewarden.store.fact import Known
from storewarden.store.paths import StoreDir

_TABLES = ("Realisations", "BuildTraceV3")
"""Where Nix records outputs of derivations: up to 2.34; from 2.35 on."""


def listable(directory: str) -> Known:
    """Whether its names can be listed; no if it is not there."""
    try:
        with os.scandir(directory):
            return Known.YES
    except FileNotFoundError:
        return Known.NO
    except OSError:
        return Known.UNKNOWN


def exists(path: str) -> Known:
    """Whether something is there, be it a link to nothing."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return Known.NO
    except OSError:
        return Known.UNKNOWN
    return Known.YES


def look_at_mount(store_dir: str, table: str = "/proc/self/mountinfo") -> Mount | Unknown:
    """How the store is mounted here."""
    seen = host.mounts()
    read_only = bool(os.statvfs(store_dir).f_flag & os.ST_RDONLY)
    if seen is None:
        return Unknown("the mounts of this machine cannot be read")
    point, kind = host.mount_of(store_dir, seen)
    return Mount(
        point, kind, read_only, wholly_read_only(point, table), host.unfit(store_dir, seen)
    )


def wholly_read_only(point: str, table: str) -> Known:
    """Whether the file system mounted there is read-only itself, and not only the mount of it.

    Its own options stand last in a line of /proc/self/mountinfo (proc(5)).
    """
    options = None
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, dash, right = line.rstrip("\n").partition(" - ")
                if dash and left.split(" ")[4:5] == [point]:  # the last one is on top
                    options = right.split(" ")[-1].split(",")
    except OSError:
        return Known.UNKNOWN
    if options is None:
        return Known.UNKNOWN
    return Known.YES if "ro" in options else Known.NO


def look_at_rooms(
    places: Mapping[str, str],
) -> tuple[tuple[Room, ...], tuple[tuple[str, str], ...]]:
    """What is left for those places, one `Room` a file system; and what cannot be told."""
    rooms: dict[int, Room] = {}
    roomless = []
    for name, path in places.items():
        found = within(lambda path=path: _room(path))  # type: ignore[misc]
        if isinstance(found, Unknown):
            roomless.append((name, found.reason))
            continue
        device, room = found
        others = rooms[device].places if device in rooms else ()
        first = rooms[device].path if device in rooms else path
        rooms[device] = Room((*others, name), first, room.f_frsize * room.f_blocks, *_left(room))
    return tuple(rooms.values()), tuple(roomless)


def _left(room: os.statvfs_result) -> tuple[int, int, int]:
    return room.f_frsize * room.f_bavail, room.f_files, room.f_favail


def _room(path: str) -> tuple[int, os.statvfs_result]:
    """Of the nearest directory above that is there already."""
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return os.stat(path).st_dev, os.statvfs(path)


def look_at_database(state_dir: str, store_dir: StoreDir) -> Database:
    """Whether it can be read and is that store's, and how many outputs it has recorded."""
    if why := misplaced(state_dir, store_dir):
        return Database(broken=why)
    try:
        with database.connect(state_dir) as connection:
            wanted = ", ".join("?" for _ in _TABLES)
            query = f"SELECT name FROM sqlite_master WHERE name IN ({wanted})"  # noqa: S608 - ours
            count = 0
            for (table,) in connection.execute(query, _TABLES).fetchall():
                row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
                count += row[0]
            return Database(realisations=count)
    except database.DatabaseUnseenError as cause:
        return Database(unseen=str(cause))
    except StoreUnreadableError as cause:
        return Database(broken=str(cause))
