# SPDX-License-Identifier: MIT
"""What a build user does who wants root to remove, change or open something else than debris.

Each attack is a process of that user. It has the trees of its debris open from before they are
taken, and goes on until it is ended.
"""

import ctypes
import fcntl
import os
import random
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden.store.paths import LOCK_SUFFIX

_NAMES = tuple("abcd")
"""Few, so that what one attack makes another meets."""
_MOST = 3000
"""Names that a storm has made before it waits for them to go."""
_CLONE_NEWUSER, _CLONE_NEWNS, _EXCHANGE = 0x10000000, 0x20000, 2
_DUMPABLE, _BIND = 4, 0x1000
_MANY_HANDS = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Target:
    """What an attacker knows, and has in its hands."""

    store: str
    debris: Sequence[str]
    """Its own entries, all directories at first."""
    free: Sequence[str]
    """Names that it may lay something at: of locks, of outputs, of private directories."""
    victim: str
    """A directory that it would have changed or emptied."""
    hands: list[int]
    """Directories of its debris, opened while they lay in the store."""
    store_fd: int
    chance: random.Random


def hands_of(store: str, debris: Sequence[str]) -> list[int]:
    """All directories of these trees, open."""
    return [os.open(top, _DIRECTORY) for name in debris for top, _, _ in os.walk(f"{store}/{name}")]


def _make(fd: int, name: str, target: Target) -> None:
    """Something of any type by that name."""
    chance = target.chance
    match chance.randrange(7):
        case 0:
            os.symlink(target.victim, name, dir_fd=fd)
        case 1:
            os.symlink(f"{target.victim}/file", name, dir_fd=fd)
        case 2:
            os.mkfifo(name, 0o600, dir_fd=fd)
        case 3:
            os.mkdir(name, chance.choice((0o000, 0o700, 0o1777)), dir_fd=fd)
        case 4:
            os.mkdir(name, dir_fd=fd)
            os.symlink(target.victim, f"{name}/{chance.choice(_NAMES)}", dir_fd=fd)
        case 5:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL, 0o666, dir_fd=fd))
        case _:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(f"/proc/self/fd/{fd}/{name}")


def _swap(target: Target) -> None:
    """A directory, and a link in its place, in turn."""
    fd, name = target.chance.choice(target.hands), target.chance.choice(_NAMES)
    with suppress(OSError):
        os.symlink(target.victim, "link", dir_fd=fd)
    with suppress(OSError):
        os.mkdir(name, dir_fd=fd)
    for old, new in ((name, "aside"), ("link", name), (name, "link"), ("aside", name)):
        with suppress(OSError):
            os.rename(old, new, src_dir_fd=fd, dst_dir_fd=fd)


def _exchange(target: Target) -> None:
    """Its entry of the store, and another thing in its place, at once or one after the other."""
    name = target.chance.choice(target.debris)
    # What lies at the name of a lock would keep it.
    free = target.chance.choice([name for name in target.free if not name.endswith(LOCK_SUFFIX)])
    with suppress(OSError):
        _make(target.store_fd, free, target)
    if target.chance.random() < 0.5:
        renameat2 = ctypes.CDLL(None).renameat2
        words = name.encode(), free.encode()
        renameat2(target.store_fd, words[0], target.store_fd, words[1], _EXCHANGE)
        return
    away = f"{free[:32]}-away"
    for old, new in ((name, away), (free, name), (name, free), (away, name)):
        with suppress(OSError):
            os.rename(old, new, src_dir_fd=target.store_fd, dst_dir_fd=target.store_fd)


def _link(target: Target) -> None:
    """One file of its own under many names, in its trees and in the store."""
    fd, to = target.chance.choice(target.hands), target.chance.choice(target.hands)
    name, free = target.chance.choice(_NAMES), target.chance.choice(target.free)
    with suppress(OSError):
        os.close(os.open("many", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    with suppress(OSError):
        os.link("many", name, src_dir_fd=fd, dst_dir_fd=to)
    os.link("many", free, src_dir_fd=fd, dst_dir_fd=target.store_fd)


def _plant(target: Target) -> None:
    """Anything where a lock, an output or a private directory would be; its lock is tried, too."""
    free = target.chance.choice(target.free)
    if target.chance.random() < 0.3:
        with suppress(OSError):
            os.unlink(free, dir_fd=target.store_fd)
    with suppress(OSError):
        _make(target.store_fd, free, target)
    fd = os.open(free, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=target.store_fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def _storm(target: Target) -> None:
    """More and more names, where they are purged."""
    for fd in target.hands:
        with suppress(OSError):
            if len(os.listdir(fd)) < _MOST:
                for _ in range(20):
                    os.mkdir(f"{target.chance.getrandbits(48):x}", dir_fd=fd)
                    _make(fd, f"{target.chance.getrandbits(48):x}", target)


def _change(target: Target) -> None:
    """Modes, contents and times, of its trees and of what it has planted."""
    fd, chance = target.chance.choice(target.hands), target.chance
    mode = chance.choice((0o000, 0o500, 0o700, 0o755, 0o1777, 0o4755, 0o2777))
    with suppress(OSError):
        os.fchmod(fd, mode)
    with suppress(OSError):
        os.chmod(chance.choice(_NAMES), mode, dir_fd=fd)
    with suppress(OSError):
        os.utime(chance.choice(target.debris), dir_fd=target.store_fd, follow_symlinks=False)
    file = os.open(chance.choice(_NAMES), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=fd)
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            os.write(file, b"changed")
    finally:
        os.close(file)


def _climb(target: Target) -> None:
    """Out of its trees, to where root has put them and to what lies beside them there."""
    fd, chance = target.chance.choice(target.hands), target.chance
    above, beside = "/".join([".."] * chance.randrange(1, 4)), chance.choice(_NAMES)
    with suppress(OSError):
        os.chmod(above, 0o777, dir_fd=fd)  # noqa: S103 - it would be root's
    with suppress(OSError):
        os.symlink(target.victim, f"{above}/{beside}", dir_fd=fd)
    for name in (beside, *target.debris):
        with suppress(OSError):
            os.rename(f"{above}/{name}", name, src_dir_fd=fd, dst_dir_fd=fd)
    os.close(os.open(above, os.O_RDONLY, dir_fd=fd))


def _hop(target: Target) -> None:
    """From process to process, and out of its session, with its hands full."""
    os.chdir(f"{target.store}/{target.chance.choice(target.debris)}")
    if os.fork():
        os._exit(0)
    if target.chance.random() < 0.2:
        os.setsid()
    time.sleep(0.002)


ATTACKS: Mapping[str, Callable[[Target], None]] = {
    "swap": _swap,
    "exchange": _exchange,
    "link": _link,
    "plant": _plant,
    "storm": _storm,
    "change": _change,
    "climb": _climb,
    "hop": _hop,
}
"""A step of each, which it does again and again."""
MOUNT = "mount"
"""In a namespace of its own it mounts what it likes on its trees, again and again."""


def go_on(attack: str, target: Target) -> None:
    """That attack, until it is ended, at a pace of its own; its system calls may fail."""
    step = _mounted() if attack == MOUNT else ATTACKS[attack]
    pace = target.chance.choice((0.0, 0.001, 0.01, 0.05))
    while True:
        time.sleep(pace * target.chance.random())
        with suppress(OSError):
            step(target)
        if target.chance.random() < 0.05:
            with suppress(OSError):
                _begin_again(target)


def _begin_again(target: Target) -> None:
    """What a build would that is begun again, where its debris has gone."""
    name = target.chance.choice(target.debris)
    os.mkdir(name, dir_fd=target.store_fd)
    fd = os.open(name, _DIRECTORY, dir_fd=target.store_fd)
    for below in _NAMES:
        os.mkdir(below, dir_fd=fd)
        os.symlink(target.victim, f"{below}/{below}", dir_fd=fd)
    if len(target.hands) < _MANY_HANDS:
        target.hands.append(fd)
    else:
        os.close(fd)


def _mounted() -> Callable[[Target], None]:
    """From now on in a namespace of its own; there it mounts what it would have emptied."""
    libc, uid = ctypes.CDLL(None, use_errno=True), os.getuid()
    libc.prctl(_DUMPABLE, 1, 0, 0, 0)
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
        return _begin_again  # users may have no namespaces here
    with open("/proc/self/uid_map", "w", encoding="ascii") as file:
        file.write(f"0 {uid} 1")

    def step(target: Target) -> None:
        place = f"{target.store}/{target.chance.choice(target.debris)}"
        for path in (place, f"{place}/{target.chance.choice(_NAMES)}"):
            libc.mount(target.victim.encode(), path.encode(), None, _BIND, None)
        time.sleep(0.01)

    return step


def garbage(chance: random.Random, lines: Sequence[bytes]) -> Iterator[bytes]:
    """What a client sends that means no good: true requests bent, cut off, doubled; and noise."""
    while True:
        line = bytearray(chance.choice(lines))
        match chance.randrange(5):
            case 0:
                line[chance.randrange(len(line))] = chance.randrange(256)
            case 1:
                del line[chance.randrange(len(line)) :]
            case 2:
                line += line
            case 3:
                line = bytearray(chance.randbytes(chance.randrange(1, 6000)))
            case _:
                pass
        yield bytes(line)
