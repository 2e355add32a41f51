# SPDX-License-Identifier: MIT
"""Everything that can be learned of one entry of the store, by an ordinary user's eyes.

The judgement is that of a sweep (scan.py); nothing here decides anything. No lock is taken, and
nothing is changed. Each question to Nix is a process of its own, bounded in time (nix_queries.py).
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from storewarden import nix_queries
from storewarden.errors import BadStorePathError, StorewardenError
from storewarden.explain.locks import LockFile, state_lock, store_lock
from storewarden.nix_queries import Registration
from storewarden.observe import Observation
from storewarden.processes import Running, running
from storewarden.scan import Finding, Sweep, is_private, look_among, user_name
from storewarden.store.database import DatabaseUnseenError
from storewarden.store.derivation import CHROOT_SUFFIX, outputs_of
from storewarden.store.entries import LINKS, Entry, EntryKind, look
from storewarden.store.nix import Nix, SilentError
from storewarden.store.paths import (
    LOCK_SUFFIX,
    Deriver,
    Origin,
    StoreDir,
    StorePath,
    parse_lock_name,
    path_lock,
    scratch_path,
)
from storewarden.store.store import Fact, Known

_MOST_LINKS = 40
_NAME_CHARACTERS = rb"0-9A-Za-z+\-._?="
_LINKS = (("exe", "runs a program from it"), ("cwd", "works in it"), ("root", "has its root in it"))
_NOTHING = Sweep((), (), "", leftovers=False)


class NotInStoreError(StorewardenError):
    """What was typed leads to nothing in the store directory."""


@dataclass(frozen=True, slots=True)
class Pointed:
    """An entry, and how it was named."""

    asked: str
    base_name: str
    """Of a file below `.links`: with that directory."""
    inside: str = ""
    """What was named below the entry."""
    through: tuple[str, ...] = ()
    """The symbolic links that were followed, as `link -> target`."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a derivation: its path where a build knows it beforehand, or a scratch path."""

    name: str
    path: str
    scratch: bool
    there: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Lines of an answer, or why there is none."""

    lines: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A process and the ways in which it uses a place."""

    process: Running
    ways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uses:
    """All uses that are to be seen."""

    seen: tuple[Use, ...]
    unseen: int | None
    """How many processes could not be looked into; None where there may be any number."""


class What(StrEnum):
    """What an entry is to Nix and to this program."""

    VALID = "valid"
    MISSING = "missing"
    ABSENT = "absent"
    """Neither there nor registered."""
    UNREGISTERED = "unregistered"
    LEFTOVER = "leftover"
    """What an interrupted removal of this program's left."""
    SHARED_FILE = "shared-file"
    """A file below `.links`."""
    UNKNOWN = "unknown"
    """There, and whether it is valid could not be told."""


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one entry; None stands for what could not be seen."""

    pointed: Pointed
    path: str
    what: What
    valid: Fact
    now: float
    entry: Entry | None
    owner_name: str | None
    finding: Finding | None
    registered: Registration | None
    derivers: tuple[Deriver, ...]
    """Derivations that it is an output of, or would be."""
    outputs: tuple[Output, ...]
    """Of a derivation."""
    locks: tuple[LockFile, ...]
    user_lock: LockFile | None
    collector: LockFile | None
    rooted: tuple[Running, ...] | None
    """Processes with a temp root on it or on its derivation."""
    uses: Uses
    roots: Answer | None
    """None: not asked, because it is not valid."""
    referrers: Answer | None
    notes: tuple[str, ...]


def story_of_entry(seen: Observation, nix: Nix, pointed: Pointed) -> Story:
    """What can be learned of that entry. What lives is looked at before Nix is asked."""
    store, name = seen.store, pointed.base_name
    path, entry = store.store_dir.join(name), _look(seen, name)
    origin = _origin(seen, name)
    uses = uses_of(path, None if entry is None else entry.file_id)
    rooted = seen.rooted(
        [p for p in (StorePath.maybe(name), *(origin.rooted if origin else ())) if p]
    )
    collector, user_lock = state_lock(seen, "gc.lock"), None
    if entry is not None and store.build_users.own(entry.uid, entry.gid):
        user_lock = state_lock(seen, store.build_users.user_lock(entry.uid))
    swept = _NOTHING if "/" in name else look_among(seen, {name}, tuple(EntryKind))
    valid = _valid(seen, name)
    registered = valid.known is Known.YES
    return Story(
        pointed=pointed,
        path=path,
        what=_what(seen, entry, valid),
        valid=valid,
        now=time.time(),
        entry=entry,
        owner_name=None if entry is None else user_name(entry.uid),
        finding=next((f for f in swept.findings if f.base_name == name), None),
        registered=_registration(seen, nix, StorePath(name)) if registered else None,
        derivers=_derivers(name, origin),
        outputs=tuple(_outputs(seen, name)),
        locks=tuple(_locks(seen, name, origin)),
        user_lock=user_lock,
        collector=collector,
        rooted=None if rooted is None else tuple(map(running, rooted)),
        uses=uses,
        roots=_roots(nix, path) if registered else None,
        referrers=_referrers(nix, path) if registered else None,
        notes=swept.notes,
    )


def _look(seen: Observation, name: str) -> Entry | None:
    with suppress(OSError):
        return look(seen.store_fd, name)
    return None


def _valid(seen: Observation, name: str) -> Fact:
    """Whether Nix or its database has it as valid; either one's yes is yes."""
    path = StorePath.maybe(name)
    if path is None:
        return Fact(Known.NO, "Nix cannot have a path of that name")
    answer = seen.valid_to_nix([path])[path]
    with suppress(DatabaseUnseenError):
        if seen.registered_among([name]):
            return Fact(Known.YES, answer.detail)
    return answer


def _what(seen: Observation, entry: Entry | None, valid: Fact) -> What:
    if entry is None:
        return What.MISSING if valid.known is Known.YES else What.ABSENT
    if entry.base_name.startswith(f"{LINKS}/") or entry.base_name == LINKS:
        return What.SHARED_FILE
    if is_private(entry, seen.store_uid):
        return What.LEFTOVER
    match valid.known:
        case Known.YES:
            return What.VALID
        case Known.NO:
            return What.UNREGISTERED
        case Known.UNKNOWN:
            return What.UNKNOWN


def _origin(seen: Observation, name: str) -> Origin | None:
    """What the path is an output of, by the database or as a scratch path; and its locks."""
    path = StorePath.maybe(name)
    if path is None or path.is_derivation or name.endswith(CHROOT_SUFFIX):
        return None
    return seen.origins([path]).get(path)


def _derivers(name: str, origin: Origin | None) -> tuple[Deriver, ...]:
    """What it is an output of; of a lock file, what it locks."""
    locked = [Deriver(r.locked, r.output) for r in parse_lock_name(name) if r.output is not None]
    return tuple(dict.fromkeys([*([origin.deriver] if origin else ()), *locked]))


def _outputs(seen: Observation, name: str) -> Iterator[Output]:
    """The outputs of the derivation of that name; none where it cannot be read."""
    derivation, store_dir = StorePath.maybe(name), seen.store.store_dir
    if derivation is None or not derivation.is_derivation:
        return
    try:
        found = outputs_of(seen.store_fd, derivation)
    except (OSError, ValueError):
        return
    for output, path in found:
        full = path
        if not path:
            with suppress(BadStorePathError):
                full = store_dir.join(scratch_path(derivation, output, store_dir).base_name)
        there = bool(full) and os.path.lexists(full)
        yield Output(output, full, not path, there)


def _locks(seen: Observation, name: str, origin: Origin | None) -> Iterator[LockFile]:
    """The lock files that cover it, and exist; of a lock file, itself."""
    if name.endswith(LOCK_SUFFIX) and parse_lock_name(name):
        names = [name]
    else:
        names = list(_lock_names(seen, name))
        names += origin.locks if origin else ()
    for one in dict.fromkeys(names):
        yield from filter(None, [store_lock(seen, one)])


def _lock_names(seen: Observation, name: str) -> Iterator[str]:
    path = StorePath.maybe(name.removesuffix(CHROOT_SUFFIX))
    if path is None:
        return
    yield path_lock(path)
    if path.is_derivation:
        # All that lie there: which outputs there are cannot always be read.
        yield from (
            n for n in seen.names if n.startswith(f"{path.base_name}.") and n.endswith(".lock")
        )
        for output in _outputs(seen, path.base_name):
            if made := StorePath.maybe(output.path.rpartition("/")[2]):
                yield path_lock(made)


def _registration(seen: Observation, nix: Nix, path: StorePath) -> Registration | None:
    """How that path is registered, from the database or else from Nix; None if it is not known."""
    query = "SELECT registrationTime, deriver, narSize, ca FROM ValidPaths WHERE path = ?"
    try:
        with seen.database() as connection:
            row = connection.execute(query, (seen.store.store_dir.join(path.base_name),)).fetchone()
    except DatabaseUnseenError:
        with suppress(SilentError):
            return nix_queries.registration(nix, path)
        return None
    return row and Registration(*row)


def _referrers(nix: Nix, full: str) -> Answer:
    """The valid paths that refer to it, without itself."""
    answer = _query(nix, "--referrers", full)
    return replace(answer, lines=tuple(line for line in answer.lines if line != full))


def _roots(nix: Nix, full: str) -> Answer:
    """What keeps it from the collector, by Nix: `link -> path` each, `{censored}` for strangers.

    Without this process, which has the path in its environment if sudo started it (SUDO_COMMAND).
    """
    answer = _query(nix, "--roots", full)
    own = f"/proc/{os.getpid()}/"
    return replace(answer, lines=tuple(x for x in answer.lines if not x.startswith(own)))


def _query(nix: Nix, question: str, full: str) -> Answer:
    try:
        return Answer(nix_queries.query(nix, question, full))
    except SilentError as silent:
        return Answer(problem=str(silent))


def uses_of(place: str, thing: tuple[int, int] | None = None, proc: str = "/proc") -> Uses:
    """The processes that use what lies at `place`; this one is left out.

    `thing` is device and inode of it: a sandboxed builder's root has another name there.
    """
    found, unseen = [], 0
    try:
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
        os.stat(f"{proc}/1/status")
    except OSError:
        return Uses((), None)
    for pid in pids:
        if pid == os.getpid():
            continue
        ways: dict[str, None] = {}
        try:
            ways.update((way, None) for way in _ways(f"{proc}/{pid}", os.fsencode(place), thing))
        except PermissionError:
            unseen += 1
        except OSError:
            continue  # it ended meanwhile
        if ways:
            found.append(Use(running(pid), tuple(ways)))
    # Without those that have ended meanwhile.
    return Uses(tuple(use for use in found if use.process.command is not None), unseen)


def _ways(process: str, place: bytes, thing: tuple[int, int] | None) -> Iterator[str]:
    named = re.compile(re.escape(place) + rb"(?![" + _NAME_CHARACTERS + rb"])")
    for link, way in _LINKS:
        if _leads(f"{process}/{link}", named) or (
            link != "exe" and _is(f"{process}/{link}", thing)
        ):
            yield way
    for number in os.listdir(f"{process}/fd"):
        if _leads(f"{process}/fd/{number}", named):
            yield "has files in it open"
    if named.search(_read(f"{process}/maps")):
        yield "has files of it mapped"
    for variable in _read(f"{process}/environ").split(b"\0"):
        if named.search(variable):
            name = os.fsdecode(variable.partition(b"=")[0])
            yield f"has it in its environment ({name})"


def _leads(link: str, named: re.Pattern[bytes]) -> bool:
    try:
        return named.match(os.readlink(os.fsencode(link))) is not None
    except FileNotFoundError:
        return False  # a kernel thread has no program; a file was closed


def _is(link: str, thing: tuple[int, int] | None) -> bool:
    try:
        found = os.stat(link)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == thing


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def point(asked: str, store_dir: StoreDir) -> Pointed:
    """The entry that `asked` leads to, whether it is there or not; `NotInStoreError` if none.

    Links are followed until they lead into the store, and not within it.
    """
    bare = "/" not in asked
    if bare and (StorePath.maybe(asked) or _is_entry(asked, store_dir)):
        return Pointed(asked, asked)
    place = _absolute(asked)
    through: list[str] = []
    while (found := _below(place, store_dir)) is None:
        step = _first_link(place)
        if step is None or len(through) == _MOST_LINKS:
            raise NotInStoreError(_refusal(asked, place, store_dir))
        link, place = step
        through.append(f"{link} -> {os.readlink(link)}")
    base_name, inside = found
    return Pointed(asked, base_name, inside, tuple(through))


def _absolute(asked: str) -> str:
    try:
        return os.path.abspath(asked)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise NotInStoreError(
            f"{asked!r} cannot be looked up from here, because the working directory is gone or"
            f" cannot be told: {reason}; name it by its full path"
        ) from cause


def _is_entry(name: str, store_dir: StoreDir) -> bool:
    plain = name not in {"", ".", ".."}
    return plain and os.path.lexists(store_dir.join(name)) and not os.path.lexists(name)


def _below(place: str, store_dir: StoreDir) -> tuple[str, str] | None:
    if not place.startswith(f"{store_dir.path}/"):
        return None
    name, _, inside = place.removeprefix(f"{store_dir.path}/").partition("/")
    if name == LINKS and inside:
        return f"{name}/{inside}", ""
    return name, inside


def _first_link(place: str) -> tuple[str, str] | None:
    """The first symbolic link on the way to `place`, and `place` by way of its target."""
    parts = place.split("/")
    for end in range(2, len(parts) + 1):
        link = "/".join(parts[:end])
        if os.path.islink(link):
            target = os.path.join(os.path.dirname(link), os.readlink(link), *parts[end:])
            return link, os.path.normpath(target)
    return None


def _refusal(asked: str, place: str, store_dir: StoreDir) -> str:
    if place == store_dir.path:
        return f"{asked!r} is the store directory itself; storewarden scan looks at all of it"
    where = "is not in" if os.path.lexists(place) else "is not there, and would not be in"
    return (
        f"{asked!r} {where} the store directory {store_dir.path}; name a store path, its base"
        " name, a lock file, or a link such as ./result"
    )
