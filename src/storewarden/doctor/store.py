# SPDX-License-Identifier: MIT
"""Where the store lies: can it be read and written, is there room, is its database whole."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from storewarden import host
from storewarden.doctor.builds import Building, recorded_outputs
from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import (
    AS_ROOT,
    Diagnosis,
    Patient,
    Step,
    Subject,
    Unknown,
    there,
    within,
)
from storewarden.doctor.service import Service
from storewarden.errors import StoreUnreadableError
from storewarden.readable import size_text
from storewarden.store import database
from storewarden.store.paths import StoreDir
from storewarden.store.store import Known

_STORE, _DATABASE = Subject("store"), Subject("database")
_MIB = 1024 * 1024
_LEAST = {"store": 512 * _MIB, "state": 64 * _MIB, "log": _MIB}
"""Bytes below which builds, Nix's database, or the audit log soon fail."""
_LEAST_INODES = 1000
_SCARCE = 20
"""A file system with less than one part in that many left is worth a note."""
_NAMES = {"store": "the store", "state": "Nix's state", "log": "the audit log"}


@dataclass(frozen=True, slots=True)
class Database:
    """Nix's database as this user sees it; both are empty where it can be read."""

    unseen: str = ""
    """Why it cannot be, where that is no fault of the database."""
    broken: str = ""
    """What is wrong with it."""


@dataclass(frozen=True, slots=True)
class StoreMount:
    """The file system that the store is on."""

    point: str
    kind: str
    read_only: bool
    wholly: Known
    """Whether the file system itself is, so that no other mount of it could be written to."""
    unfit: str
    """Why nothing may be removed on it; empty where it may."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on a file system, for users who are not root."""

    places: tuple[str, ...]
    """What of ours and Nix's lies on it: `store`, `state`, `log`."""
    path: str
    size: int
    free: int
    """Bytes."""
    inodes: int
    """0 where the file system does not count them."""
    free_inodes: int


@dataclass(frozen=True, slots=True)
class Storage:
    """The store directory, the database, and the file systems that they are on."""

    listed: Known
    """Whether the store directory can be listed; no: it is not there."""
    database: Database | Unknown
    mount: StoreMount | Unknown
    rooms: tuple[Room, ...]
    roomless: tuple[tuple[str, str], ...]
    """Places of which nothing can be told, and why."""


def look(patient: Patient) -> Storage:
    """All of it; what a file server does not answer is left unknown."""
    config = patient.config
    store_dir, state_dir = config.store_dir.path, config.state_dir
    places = {"store": store_dir, "state": state_dir, "log": os.path.dirname(config.audit_log)}
    return Storage(
        there(lambda: os.scandir(store_dir).close()),
        within(lambda: look_at_database(state_dir, config.store_dir)),
        within(lambda: look_at_mount(store_dir)),
        *look_at_rooms(places),
    )


def look_at_database(state_dir: str, store_dir: StoreDir) -> Database:
    """Whether it can be read and is that store's."""
    try:
        recorded_outputs(state_dir, store_dir)  # not before something is read is it seen to be one
    except database.DatabaseUnseenError as cause:
        return Database(unseen=str(cause))
    except StoreUnreadableError as cause:
        return Database(broken=str(cause))
    return Database()


def look_at_mount(store_dir: str, table: str = "/proc/self/mountinfo") -> StoreMount | Unknown:
    """How the store is mounted here."""
    seen = host.mounts()
    read_only = bool(os.statvfs(store_dir).f_flag & os.ST_RDONLY)
    if seen is None:
        return Unknown("the mounts of this machine cannot be read")
    point, kind = host.mount_of(store_dir, seen)
    return StoreMount(
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
        found = within(lambda path=path: _file_system(path))  # type: ignore[misc]
        if isinstance(found, Unknown):
            roomless.append((name, found.reason))
            continue
        device, room = found
        others = rooms[device].places if device in rooms else ()
        first = rooms[device].path if device in rooms else path
        size, free = room.f_frsize * room.f_blocks, room.f_frsize * room.f_bavail
        rooms[device] = Room((*others, name), first, size, free, room.f_files, room.f_favail)
    return tuple(rooms.values()), tuple(roomless)


def _file_system(path: str) -> tuple[int, os.statvfs_result]:
    """Of the nearest directory above that is there already."""
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return os.stat(path).st_dev, os.statvfs(path)


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """The store directory, its file system, the database, the room that is left."""
    storage, store_dir = patient[Storage], patient.config.store_dir.path
    if storage.listed is not Known.YES:
        how = "is not there" if storage.listed is Known.NO else "cannot be listed"
        yield _STORE.problem(
            f"The store directory {store_dir} {how}",
            "Nothing can be found.",
            Step("Is it mounted, is store-dir right?", "storewarden check-config"),
        )
    elif isinstance(storage.mount, Unknown):
        yield _STORE.unknown(
            f"How {store_dir} is mounted cannot be told: {storage.mount.reason}",
            "Nothing is removed where that cannot be told.",
        )
    else:
        yield _mount(patient, storage.mount)
    if patient[Installation].state is not Known.NO:
        yield _database(patient)
    for room in () if patient[Installation].apart else storage.rooms:
        yield from _room(room)
    for place, reason in storage.roomless:
        yield Subject(f"room-{place}").unknown(
            f"How full the disk of {_NAMES[place]} is, is unknown: {reason}"
        )


def _mount(patient: Patient, mount: StoreMount) -> Diagnosis:
    where = f"{patient.config.store_dir.path} ({mount.kind or 'unknown'}, mounted at {mount.point})"
    if not mount.kind:
        return _STORE.unknown(mount.unfit, "Nothing is removed here.")
    if mount.unfit and not patient[Installation].apart:
        return _STORE.problem(
            mount.unfit,
            "storewarden only reports here: others may write there whose locks are not seen, or"
            " what is removed may lie in a lower layer.",
            Step("Run storewarden where the file system of the store is local."),
        )
    if not mount.read_only:
        return _STORE.ok(f"The store is {where}")
    if patient[Installation].apart:
        return _STORE.note(
            f"The store is read-only here: {where}",
            "As is usual in a sandbox; nothing is removed from here in any case.",
        )
    return _read_only(patient, mount, where)


def _read_only(patient: Patient, mount: StoreMount, where: str) -> Diagnosis:
    if mount.wholly is Known.YES:
        return _STORE.problem(
            f"The file system of the store is read-only: {where}",
            "Nix can neither build nor collect, and nothing can be removed.",
            Step("Why? An error of the disk, perhaps.", "sudo dmesg | tail -n 30"),
            Step("Once that is mended.", f"sudo mount -o remount,rw {mount.point}"),
        )
    if patient[Service].guarded:
        return _STORE.ok(f"The store is mounted read-only, and the helper copes: {where}")
    if patient[Building].namespaces is Known.NO:
        return _STORE.problem(
            f"The store is mounted read-only, and root here may not mount: {where}",
            "Neither Nix nor storewarden can make it writable for itself, so nothing is removed.",
            Step("Run storewarden outside of this container.", "sudo storewarden scan --yes"),
        )
    return _STORE.note(
        f"The store is mounted read-only: {where}",
        "As on NixOS. Nix, and root with storewarden, make it writable for themselves alone; the"
        " service that storewarden setup installs is told how.",
    )


def _database(patient: Patient) -> Diagnosis:
    found = patient[Storage].database
    if isinstance(found, Unknown):
        return _DATABASE.unknown(f"Nix's database cannot be read: {found.reason}")
    if found.broken:
        return _DATABASE.problem(
            found.broken[:1].upper() + found.broken[1:],
            "What is valid cannot be known, so nothing is removed.",
        )
    if found.unseen:
        sudo = () if patient[Installation].apart or patient.uid == 0 else (AS_ROOT,)
        return _DATABASE.unknown(
            "Nix's database cannot be read by this user here",
            f"A sweep then goes by the owners of paths, and asks Nix: {found.unseen}.",
            *sudo,
        )
    return _DATABASE.ok("Nix's database can be read")


def _room(room: Room) -> Iterator[Diagnosis]:
    *others, last = (_NAMES[place] for place in room.places)
    names = f"{', '.join(others)} and {last}" if others else last
    left = f"{size_text(room.free)} of {size_text(room.size)}"
    least = max(_LEAST[place] for place in room.places)
    clean = Step("What takes the room?", f"df -h {room.path}; df -i {room.path}")
    collect = Step("Nix removes what nothing needs any more.", "nix-collect-garbage")
    steps = (clean, collect) if set(room.places) - {"log"} else (clean,)
    if room.free < least:
        yield Subject(f"room-{room.places[0]}").problem(
            f"The disk of {names} is nearly full: {left} are left",
            "Builds fail half-way and leave their outputs; Nix cannot register what is complete;"
            " where the audit log cannot be written, nothing is removed.",
            *steps,
        )
    elif room.free * _SCARCE < room.size:
        yield Subject(f"room-{room.places[0]}").note(
            f"The disk of {names} fills up: {left} are left", "", *steps
        )
    else:
        yield Subject(f"room-{room.places[0]}").ok(f"The disk of {names} has room: {left} are left")
    if room.inodes and room.free_inodes < _LEAST_INODES:
        yield Subject(f"inodes-{room.places[0]}").problem(
            f"The disk of {names} has {room.free_inodes} of {room.inodes} inodes left",
            "Nothing new can be made, not even the lock files of the collector. Nix never deletes"
            " the logs of builds.",
            Step("How many logs are there?", "find /nix/var/log/nix/drvs -type f | wc -l"),
            *steps,
        )
