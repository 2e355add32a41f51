# SPDX-License-Identifier: MIT
"""One store, as this program sees it: where it lies, who answers what about it, and with what."""

import grp
import os
import pwd
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from storewarden.store.entries import BuildUsers
from storewarden.store.paths import StoreDir, StorePath

LEAST_AGE = 2.0
"""Seconds, unless another age is asked for."""


class Known(Enum):
    """Yes, no, or unknown, which is never taken for no."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fact:
    """Whether a claim holds, and what was seen, in plain words."""

    known: Known
    detail: str = ""


YES, NO, UNKNOWN = Fact(Known.YES), Fact(Known.NO), Fact(Known.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Store:
    """A store and its witnesses; both sides judge it by the same rule and by their own eyes."""

    store_dir: StoreDir
    state_dir: str
    build_users: BuildUsers
    ask_nix: Callable[[Sequence[StorePath]], dict[StorePath, Fact]]
    """For each store path whether Nix has it as valid."""
    processes_of: Callable[[Collection[int]], list[int] | None]
    """Pids that run as one of those uids; None where some cannot be seen."""
    min_age: float | None
    """Seconds since its last change that an entry must have been left alone, if somebody says."""
    view: str
    """Where the store directory is opened: `store_dir` itself, or a writable view of it."""
    hidden_uid: int | None = None
    """What owners show as who have no uid in this user namespace. Nothing follows from it."""
    apart: Callable[[], bool] = lambda: False
    """Whether nix-daemon runs where neither its processes nor their locks can be seen from here."""

    @property
    def least_age(self) -> float:
        """How long an entry that no known lock covers must have been left alone."""
        return LEAST_AGE if self.min_age is None else self.min_age

    def temp_roots(self, is_live: Callable[[int], bool]) -> dict[StorePath, list[str]]:
        """Every temp root of a live process, with the pids of those that have it.

        gc.cc `findTempRoots`: a file whose flock can be taken has a dead owner; `is_live` tells by
        a descriptor of it whether somebody holds that. A missing directory means that nobody ever
        had a root; any other `OSError` that they cannot all be read.
        """
        roots: dict[StorePath, list[str]] = {}
        directory = f"{self.state_dir}/temproots"
        with suppress(FileNotFoundError):
            for name in [name for name in os.listdir(directory) if not name.startswith(".")]:
                for text in _content_if(is_live, f"{directory}/{name}").split(b"\0"):
                    base_name = os.fsdecode(text).removeprefix(f"{self.store_dir.path}/")
                    if (path := StorePath.maybe(base_name)) is not None:
                        roots.setdefault(path, []).append(name)
        return roots


def _content_if(is_live: Callable[[int], bool], path: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        return b""  # its process ended meanwhile
    with os.fdopen(fd, "rb") as file:
        return file.read() if is_live(fd) else b""


def build_users(group: str, allocated: tuple[int, int, int]) -> BuildUsers:
    """The build users of that group, as Nix resolves them (user-lock.cc: members, by name).

    `allocated` is first uid, count and uids a slot of auto-allocate-uids on this system.
    """
    first, count, per_slot = allocated
    try:
        found = grp.getgrnam(group)
    except KeyError:
        return BuildUsers(None, frozenset(), first, count, per_slot)
    uids = set()
    for member in found.gr_mem:
        try:
            uids.add(pwd.getpwnam(member).pw_uid)
        except KeyError:
            continue  # a member that no longer exists builds nothing
    return BuildUsers(found.gr_gid, frozenset(uids) - {0}, first, count, per_slot)
