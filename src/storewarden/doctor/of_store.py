# SPDX-License-Identifier: MIT
"""Where the store lies: can it be read and written, is there room, is its database whole. Pure."""

from collections.abc import Iterator

from storewarden.doctor.diagnosis import AS_ROOT, Diagnosis, Step, note, ok, problem, unknown
from storewarden.doctor.facts import Facts, Mount, Room, Unknown
from storewarden.readable import size_text
from storewarden.store.fact import Known

_MIB = 1024 * 1024
_LEAST = {"store": 512 * _MIB, "state": 64 * _MIB, "log": _MIB}
"""Bytes below which builds, Nix's database, or the audit log soon fail."""
_LEAST_INODES = 1000
_SCARCE = 20
"""A file system with less than one part in that many left is told of."""
_NAMES = {"store": "the store", "state": "Nix's state", "log": "the audit log"}


def of_store(facts: Facts) -> Iterator[Diagnosis]:
    """The store directory, its file system, the database, the room that is left."""
    store_dir = facts.config.store_dir.path
    if facts.store is not Known.YES:
        how = "is not there" if facts.store is Known.NO else "cannot be listed"
        yield problem(
            "store",
            f"The store directory {store_dir} {how}",
            "Nothing can be found.",
            Step("Is it mounted, is store-dir right?", "storewarden check-config"),
        )
    elif isinstance(facts.mount, Unknown):
        yield unknown(
            "store",
            f"How {store_dir} is mounted cannot be told: {facts.mount.reason}",
            "Nothing is removed where that cannot be told.",
        )
    else:
        yield _mount(facts, facts.mount)
    if facts.state is not Known.NO:
        yield _database(facts)
    for room in () if facts.apart else facts.rooms:
        yield from _room(room)
    for place, reason in facts.roomless:
        yield unknown(
            f"room-{place}", f"How full the disk of {_NAMES[place]} is, is unknown: {reason}", ""
        )


def _mount(facts: Facts, mount: Mount) -> Diagnosis:
    where = f"{facts.config.store_dir.path} ({mount.kind or 'unknown'}, mounted at {mount.point})"
    if not mount.kind:
        return unknown("store", mount.unfit, "Nothing is removed here.")
    if mount.unfit and not facts.apart:
        return problem(
            "store",
            mount.unfit,
            "storewarden only reports here: others may write there whose locks are not seen, or"
            " what is removed may lie in a lower layer.",
            Step("Run storewarden where the file system of the store is local."),
        )
    if not mount.read_only:
        return ok("store", f"The store is {where}")
    if facts.apart:
        return note(
            "store",
            f"The store is read-only here: {where}",
            "As is usual in a sandbox; nothing is removed from here in any case.",
        )
    return _read_only(facts, mount, where)


def _read_only(facts: Facts, mount: Mount, where: str) -> Diagnosis:
    if mount.wholly is Known.YES:
        return problem(
            "store",
            f"The file system of the store is read-only: {where}",
            "Nix can neither build nor collect, and nothing can be removed.",
            Step("Why? An error of the disk, perhaps.", "sudo dmesg | tail -n 30"),
            Step("Once that is mended.", f"sudo mount -o remount,rw {mount.point}"),
        )
    if facts.guarded:
        return ok("store", f"The store is mounted read-only, and the helper copes: {where}")
    if facts.kernel.namespaces is Known.NO:
        return problem(
            "store",
            f"The store is mounted read-only, and root here may not mount: {where}",
            "Neither Nix nor storewarden can make it writable for itself, so nothing is removed.",
            Step("Run storewarden outside of this container.", "sudo storewarden scan --yes"),
        )
    return note(
        "store",
        f"The store is mounted read-only: {where}",
        "As on NixOS. Nix, and root with storewarden, make it writable for themselves alone; the"
        " service that storewarden setup installs is told how.",
    )


def _database(facts: Facts) -> Diagnosis:
    found = facts.database
    if isinstance(found, Unknown):
        return unknown("database", f"Nix's database cannot be read: {found.reason}", "")
    if found.broken:
        return problem(
            "database",
            found.broken[:1].upper() + found.broken[1:],
            "What is valid cannot be known, so nothing is removed.",
        )
    if found.unseen:
        sudo = () if facts.apart or facts.uid == 0 else (AS_ROOT,)
        return unknown(
            "database",
            "Nix's database cannot be read by this user here",
            f"A sweep then goes by the owners of paths, and asks Nix: {found.unseen}.",
            *sudo,
        )
    return ok("database", "Nix's database can be read")


def _room(room: Room) -> Iterator[Diagnosis]:
    *others, last = (_NAMES[place] for place in room.places)
    names = f"{', '.join(others)} and {last}" if others else last
    left = f"{size_text(room.free)} of {size_text(room.size)}"
    least = max(_LEAST[place] for place in room.places)
    clean = Step("What takes the room?", f"df -h {room.path}; df -i {room.path}")
    collect = Step("Nix removes what nothing needs any more.", "nix-collect-garbage")
    steps = (clean, collect) if set(room.places) - {"log"} else (clean,)
    if room.free < least:
        yield problem(
            f"room-{room.places[0]}",
            f"The disk of {names} is nearly full: {left} are left",
            "Builds fail half-way and leave their outputs; Nix cannot register what is complete;"
            " where the audit log cannot be written, nothing is removed.",
            *steps,
        )
    elif room.free * _SCARCE < room.size:
        yield note(
            f"room-{room.places[0]}", f"The disk of {names} fills up: {left} are left", "", *steps
        )
    else:
        yield ok(f"room-{room.places[0]}", f"The disk of {names} has room: {left} are left")
    if room.inodes and room.free_inodes < _LEAST_INODES:
        yield problem(
            f"inodes-{room.places[0]}",
            f"The disk of {names} has {room.free_inodes} of {room.inodes} inodes left",
            "Nothing new can be made, not even the lock files of the collector. Nix never deletes"
            " the logs of builds.",
            Step(
                "How many logs are there?",
                "find /nix/var/log/nix/drvs -type f | wc -l",
            ),
            *steps,
        )
