# SPDX-License-Identifier: MIT
"""Sweeps over a throwaway store, and the processes that make something in it look alive."""

import fcntl
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from storewarden import host
from storewarden.claims import Verdict
from storewarden.observe import unregistered_names
from storewarden.scan import Finding, Sweep, sweep
from storewarden.store.database import DatabaseUnseenError, Outputs, connect, registered
from storewarden.store.derivation import find_origins
from storewarden.store.entries import EntryKind
from storewarden.store.paths import Origin, StoreDir, StorePath
from storewarden.store.store import Store
from storewarden.throwaway import ThrowawayStore

SEES_LOCKS = host.flocks() is not None
needs_lock_table = pytest.mark.skipif(
    not SEES_LOCKS, reason="this system has no table of locks, so nobody can see who holds one"
)
BEST = Verdict.REMOVABLE if SEES_LOCKS else Verdict.CANDIDATE
"""The verdict on what nothing claims."""
_NUMBERS = range(1, host.ALLOCATED // host.PER_SLOT // 2)
_FIRST_PORT = 28400

_HOLD = """
import fcntl, os, sys
flags = os.O_RDONLY if os.path.isdir(sys.argv[1]) else os.O_RDWR | os.O_CREAT
fd = os.open(sys.argv[1], flags, 0o600)
fcntl.flock(fd, int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


_LEADERLESS = """
import ctypes, os, sys, threading, time
def state():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        return stat.read().rsplit(")")[-1].split()[0]
def work():
    while state() != "Z":
        time.sleep(0.01)
    print("alone", flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def own_place(directory: str) -> ThrowawayStore:
    """An empty throwaway store of whose build user no test that runs beside this one has a process.

    As root that is another slot, with a free one after it, for each process that runs tests.
    """
    place = ThrowawayStore.create(directory)
    if os.geteuid() == 0:
        number, _ = _own_number()
        place.builder += 2 * host.PER_SLOT * number
    return place


@functools.cache
def _own_number() -> tuple[int, socket.socket]:
    """One that no other process of this machine has: it holds a port until it ends."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in _NUMBERS:
        with suppress(OSError):
            taken.bind(("127.0.0.1", _FIRST_PORT + number))
            return number, taken
    raise AssertionError(f"{len(_NUMBERS)} processes run tests already")


def user_lock(place: ThrowawayStore) -> str:
    """The lock that Nix holds while that store's build user builds; below the state directory."""
    slot = place.as_store().build_users.slot(place.builder)
    return f"userpool/{place.builder}" if slot is None else f"userpool2/slot-{slot}"


def alone(place: ThrowawayStore) -> Store:
    """The store in a world where no process of a build user runs.

    An ordinary user builds in its throwaway store itself, so whoever else helps a test there is a
    process of the owner, too.
    """
    return replace(place.as_store(), processes_of=lambda _: [])


@contextmanager
def sealed(place: ThrowawayStore) -> Iterator[None]:
    """While this user may only read the database's directory, without a `-shm` file in it."""
    directory = f"{place.state_dir}/db"
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/db.sqlite{suffix}")
    os.chmod(directory, 0o500)
    try:
        yield
    finally:
        os.chmod(directory, 0o700)


def found(swept: Sweep) -> dict[str, Finding]:
    """The findings by name."""
    return {finding.base_name: finding for finding in swept.findings}


def valid_names(state_dir: str, store_dir: StoreDir) -> set[str]:
    """What the database has as valid in that store directory, as a sweep takes it away."""
    with connect(state_dir) as connection:
        _, count, absent = unregistered_names(connection, store_dir, ())
    assert len(absent) == count
    return set(absent)


def still_valid(state_dir: str, store_dir: StoreDir, names: Iterable[str]) -> list[str]:
    """Those of `names` that it has."""
    with connect(state_dir) as connection:
        paths = filter(None, map(StorePath.maybe, names))
        return [path.base_name for path in paths if registered(connection, store_dir, path)]


def origins_of(
    store: Store, store_fd: int, paths: Iterable[StorePath], names: Iterable[str]
) -> dict[StorePath, Origin]:
    """As `find_origins`, by the database if it can be read."""
    paths, names = list(paths), list(names)
    try:
        with connect(store.state_dir) as connection:
            outputs = Outputs(connection, store.store_dir)
            return find_origins(store, store_fd, paths, names, outputs)
    except DatabaseUnseenError:
        return find_origins(store, store_fd, paths, names, None)


def look_at(
    place: ThrowawayStore | Store, kinds: Collection[EntryKind] = tuple(EntryKind)
) -> dict[str, Finding]:
    """What a sweep finds, by name."""
    return found(sweep(place if isinstance(place, Store) else place.as_store(), kinds))


@contextmanager
def holding(path: str, operation: int = fcntl.LOCK_EX) -> Iterator[int]:
    """While another process, whose pid this is, really holds the flock of that file."""
    command = [sys.executable, "-I", "-S", "-c", _HOLD, path, str(operation)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield other.pid


@contextmanager
def leaderless(cwd: str | None = None) -> Iterator[int]:
    """While a process lives whose main thread has ended (a zombie, were it not for the others)."""
    command = [sys.executable, "-I", "-S", "-c", _LEADERLESS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=cwd) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"alone\n"
            yield process.pid
        finally:
            process.kill()


@contextmanager
def building_as(uid: int) -> Iterator[int]:
    """A process of that build user lives, or of this one where nobody else can be become."""
    user = uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "300"], user=user) as builder:
        try:
            yield builder.pid
        finally:
            builder.kill()


def picture(top: str) -> dict[str, tuple[int, ...]]:
    """All that lies below a directory, as lstat sees it, but SQLite's own shared memory and log."""
    seen = {}
    for directory, _, names in os.walk(top):
        for name in (".", *names):
            if not name.endswith(("-shm", "-wal")):
                stat = os.lstat(f"{directory}/{name}")
                times = () if directory.endswith("/db") else (stat.st_mtime_ns, stat.st_ctime_ns)
                seen[f"{directory}/{name}"] = (stat.st_ino, stat.st_mode, stat.st_size, *times)
    return seen
