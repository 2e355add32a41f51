# SPDX-License-Identifier: MIT
"""Nix's lock files: which there are, who holds them, who waits; for people and as JSON.

They are looked at, and none is ever tried. Even a flock that is tried for an instant could make a
builder wait, so the table of the kernel is all that is asked. Where it cannot be read, or shows
another pid namespace, it is unknown.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from glob import escape, glob

from storewarden.observe import Observation
from storewarden.processes import Running, running
from storewarden.readable import since, typed
from storewarden.scan import locked_by
from storewarden.store.entries import Entry, entry_of, look
from storewarden.store.paths import LOCK_SUFFIX, Deriver, covered_paths, parse_lock_name
from storewarden.store.store import Known

_BELOW_STATE = (
    "gc.lock",
    "db/big-lock",
    "userpool/*",
    "userpool2/slot-*",
    "temproots/*",
    "profiles/*.lock",
    "profiles/per-user/*/*.lock",
    "current-load/*",
)
_DIRECTORIES = ("userpool", "userpool2", "temproots", "profiles", "current-load")
_OWNER = ".owner"
"""Of `<path>.lock.owner`: held with the lock, so that macOS can tell who (NixOS/nix#13813)."""
_REMOTE = "-remote"
"""Of `<path>-remote.lock`: taken as well for a build elsewhere (NixOS/nix#15856)."""
_UPLOAD, _CHOICE = ".upload-lock", "main-lock"
_LONG = 36
POISONED = "POISONED"


class Role(StrEnum):
    """What a lock file is for."""

    STORE = "store"
    """A path, or an output of a derivation, that is built, fetched or added."""
    BUILD_USER = "build-user"
    COLLECTOR = "collector"
    """`gc.lock`: held exclusively by a collector."""
    TEMP_ROOTS = "temp-roots"
    PROFILE = "profile"
    DATABASE = "database"
    """`db/big-lock`: shared by all that have the store open, exclusive while it is upgraded."""
    REMOTE = "remote-builder"
    """Below `current-load`, on the machine that asks remote builders (build-remote.cc)."""


_ROLES = {
    Role.STORE: "a path of the store",
    Role.BUILD_USER: "a build user, taken by the build that runs as it",
    Role.COLLECTOR: "the garbage collector",
    Role.TEMP_ROOTS: "what a process uses that is not yet rooted",
    Role.PROFILE: "a profile, while a generation of it is made or deleted",
    Role.DATABASE: "the database, shared by all that have it open",
    Role.REMOTE: "a place on a remote builder, taken for one build",
}


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file and what is to be seen around it."""

    path: str
    role: Role
    changed: float | None
    """Unix time (ctime): when it was made, unless it was reused or touched since."""
    size: int | None
    held: Known
    shared: bool = False
    """Held by any number at once, which only keeps out who wants it alone."""
    holders: tuple[Running, ...] = ()
    blocked: tuple[Running, ...] = ()
    """Who waits for it in the kernel."""
    rooted: tuple[Running, ...] | None = ()
    """Who else has a temp root on what it covers: builds that wait ask again every few seconds,
    and no table shows them. None where temp roots cannot be read."""
    covers: tuple[str, ...] = ()
    """Base names of the paths that it may cover."""
    deriver: Deriver | None = None

    @property
    def state(self) -> str:
        """`held`, `stale`, `free` or `unknown`. Stale: in the store, and not seen to be held."""
        match self.held:
            case Known.YES:
                return "held"
            case Known.UNKNOWN:
                return "unknown"
            case Known.NO:
                return "stale" if self.role is Role.STORE else "free"

    @property
    def poisoned(self) -> bool:
        """Whether Nix takes it for one that was deleted, and tries for ever to lock it."""
        return self.state == "stale" and bool(self.size)


def store_lock(seen: Observation, name: str) -> LockFile | None:
    """The lock file of that base name in the store; None where there is none."""
    try:
        entry = look(seen.store_fd, name)
    except OSError:
        return _unseen(seen, name)
    if entry is None or not stat.S_ISREG(entry.mode):
        return None
    meant = _meant(name)
    covered = tuple(covered_paths(meant, seen.store.store_dir))
    # What the database knows is enough: the other locks name their derivation.
    deriver = locked_by(seen, meant, seen.origins(covered, by_names=False))
    lock = _lock_file(seen, seen.store.store_dir.join(name), entry, Role.STORE)
    pids = seen.rooted((*covered, deriver.derivation) if deriver else covered)
    holders = {one.pid for one in lock.holders}
    rooted = None if pids is None else tuple(running(p) for p in pids if p not in holders)
    names = tuple(path.base_name for path in covered)
    return replace(lock, rooted=rooted, covers=names, deriver=deriver)


def _meant(name: str) -> str:
    """The name of the lock that it stands beside, or itself."""
    name = name.removesuffix(_OWNER)
    if name.endswith(f"{_REMOTE}{LOCK_SUFFIX}"):
        return f"{name.removesuffix(f'{_REMOTE}{LOCK_SUFFIX}')}{LOCK_SUFFIX}"
    return name


def _unseen(seen: Observation, name: str) -> LockFile:
    path = seen.store.store_dir.join(name)
    return LockFile(path, Role.STORE, None, None, Known.UNKNOWN)


def state_lock(seen: Observation, name: str) -> LockFile | None:
    """The lock file of that name below the state directory; None where there is none."""
    path = f"{seen.store.state_dir}/{name}"
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:
        return LockFile(path, _role(name), None, None, Known.UNKNOWN)
    return _lock_file(seen, path, entry_of(name, found), _role(name))


def all_locks(seen: Observation) -> Iterator[LockFile]:
    """Every lock file of the store and its state: those in the store first."""
    for name in sorted(seen.names):
        if not parse_lock_name(name.removesuffix(_OWNER)):
            continue
        try:
            entry = look(seen.store_fd, name)
        except OSError:
            yield _unseen(seen, name)
            continue
        # An output may be called so too; Nix's own are the store owner's, 0600 (pathlocks.cc).
        if entry and entry.uid == seen.store_uid and stat.S_IMODE(entry.mode) == 0o600:  # noqa: PLR2004 - a mode
            yield from filter(None, [store_lock(seen, name)])
    top = escape(seen.store.state_dir)
    for pattern in _BELOW_STATE:
        for path in sorted(glob(f"{top}/{pattern}")):
            name = path.removeprefix(f"{seen.store.state_dir}/")
            yield from filter(None, [state_lock(seen, name)])


def hidden_places(state_dir: str) -> list[str]:
    """The directories of lock files that this user may not list."""
    places = (f"{state_dir}/{name}" for name in _DIRECTORIES)
    return [p for p in places if os.path.isdir(p) and not os.access(p, os.R_OK | os.X_OK)]


def _lock_file(seen: Observation, path: str, entry: Entry, role: Role) -> LockFile:
    if seen.flocks is None:
        return LockFile(path, role, entry.ctime, entry.size, Known.UNKNOWN)
    on_it = [lock for lock in seen.flocks if lock.inode == entry.file_id.inode]
    holders = [lock for lock in on_it if not lock.waits]
    return LockFile(
        path,
        role,
        entry.ctime,
        entry.size,
        Known.YES if holders else Known.NO,
        shared=bool(holders) and not any(lock.exclusive for lock in holders),
        holders=tuple(running(pid) for pid in dict.fromkeys(lock.pid for lock in holders)),
        blocked=tuple(running(p) for p in dict.fromkeys(x.pid for x in on_it if x.waits)),
    )


def _role(name: str) -> Role:
    match name.partition("/")[0]:
        case "userpool" | "userpool2":
            return Role.BUILD_USER
        case "temproots":
            return Role.TEMP_ROOTS
        case "profiles":
            return Role.PROFILE
        case "db":
            return Role.DATABASE
        case "current-load":
            return Role.REMOTE
        case _:
            return Role.COLLECTOR


def lock_rows(lock: LockFile, now: float) -> Iterator[tuple[str, str]]:
    """What is shown of it, by lines that may have a label."""
    yield "for", _purpose(lock)
    yield "", lock_text(lock, now)
    if lock.poisoned:
        yield "", f"{POISONED}: it is not empty, so Nix tries for ever to lock it"
        yield "", typed("storewarden explain tells how it goes")
    elif lock.state == "stale":
        yield "", "harmless: the next build of it takes it over"
    if lock.role is Role.STORE and lock.held is Known.YES and lock.rooted is None:
        yield "", "who waits for it can be seen by root"


def _purpose(lock: LockFile) -> str:
    name = lock.path.rpartition("/")[2]
    if lock.role is Role.REMOTE:
        if name == _CHOICE:
            return "the choice of a remote builder, one build after another"
        if name.endswith(_UPLOAD):
            return f"sending files to {name.removesuffix(_UPLOAD)}, for one build after another"
        host, _, number = name.rpartition("-")
        return f"place {number} on the remote builder {host}" if host else _ROLES[lock.role]
    if lock.deriver is not None:
        text = f"output {lock.deriver.output} of {lock.deriver.derivation.base_name}"
    else:
        text = lock.covers[0] if lock.covers else _ROLES[lock.role]
    if name.endswith(_OWNER):
        return f"{text}: says who holds its lock"
    return f"{text}, built by a remote builder" if _meant(name) != name else text


def lock_json(lock: LockFile, store_dir: str) -> dict[str, object]:
    """A lock file as a JSON object; `store_dir` is that of what it covers."""
    deriver = lock.deriver
    return {
        "path": lock.path,
        "role": lock.role,
        "held": lock.held,
        "shared": lock.shared,
        "holders": lock.holders,
        "blocked": lock.blocked,
        "wantedBy": lock.rooted,
        "changed": lock.changed,
        "sizeBytes": lock.size,
        "covers": [f"{store_dir}/{name}" for name in lock.covers],
        "deriver": deriver and f"{store_dir}/{deriver.derivation.base_name}",
        "output": deriver and deriver.output,
    }


def who_text(one: Running) -> str:
    """`process 12 (nix-daemon 7), root, for process 7 (nix-build)`, as far as it is known."""
    if one.command is None:
        return f"process {one.pid}, which has ended or cannot be seen"
    words = [f"process {one.pid} ({_cut(one.command)})"]
    words += [one.user] if one.user else []
    if one.client is not None:
        asked = f" ({_cut(one.client_command)})" if one.client_command else ""
        words.append(f"for process {one.client}{asked}")
    if one.client_gone:
        words.append("its client is gone, so nobody waits for its work")
    elif one.client is not None and not one.client_command:
        words.append("which cannot be seen")
    return ", ".join(words)


def _cut(command: str) -> str:
    return command if len(command) <= _LONG else f"{command[:_LONG]}..."


def same_work(one: Running, other: Running) -> bool:
    """Whether two workers work for the same command, or one for the other."""
    clients = {one.client, one.pid} & {other.client, other.pid}
    return bool(clients - {None})


def process_text(one: Running, now: float) -> str:
    """The same, and for how long it has been running."""
    running = "" if one.began is None else f", running for {since(one.began, now)}"
    return who_text(one) + running


def lock_text(lock: LockFile, now: float) -> str:
    """Whether it is held and by whom, and who waits."""
    match lock.held:
        case Known.UNKNOWN:
            text = "whether it is held cannot be seen here"
        case Known.NO:
            text = "nobody is seen to hold it"
            if lock.changed is not None:
                text += f"; last changed {since(lock.changed, now)} ago"
        case Known.YES:
            text = "; ".join(_held(one, now) for one in lock.holders)
    for one in lock.blocked:
        text += f"; {process_text(one, now)} waits for it"
        if any(one.pid == holder.pid for holder in lock.holders):
            text += ", which is itself: it waits for ever (NixOS/nix#15846)"
        elif any(same_work(one, holder) for holder in lock.holders):
            text += ": you wait for yourself, as both work for the same command"
    for one in lock.rooted or ():
        text += f"; {who_text(one)}, has a temp root on it too and may wait"
    return text


def _held(one: Running, now: float) -> str:
    """Nothing tells when a lock was taken; but not before its process began."""
    if one.began is None:
        return f"held by {who_text(one)}"
    return f"held for at most {since(one.began, now)} by {who_text(one)}"
