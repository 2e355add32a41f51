# SPDX-License-Identifier: MIT
"""Builds that went on where an interrupted one had left off: noticed, remembered, and forgotten.

Nix does not clear away what lies at the scratch path of a floating output (2.4 to 2.36). A builder
of the same build user that finds it there goes on in it, and all of it is registered. So the path
that comes of that is valid, and may hold files that no whole build would make.

What shows it is an object at a scratch path that was left: nobody held its lock any more, or who
held it was another process than before. Where that same object goes away while nothing of that name
is made anew, and its derivation has an output registered since, that output was built on it.
"""

import json
import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from storewarden import processes
from storewarden.daemon.status import BUILT_ON_REMAINS, Doubtful, open_regular, replace_file, typed
from storewarden.errors import StorewardenError
from storewarden.observe import Observation
from storewarden.protocol import Outcome, Status
from storewarden.scan import Finding
from storewarden.store.entries import Entry, EntryKind, FileId, look
from storewarden.store.paths import (
    LOCK_SUFFIX,
    Deriver,
    StoreDir,
    StorePath,
    covered_paths,
    output_lock,
    parse_lock_name,
    redirect_path,
    scratch_path,
)

Holder = tuple[int, Hashable]
"""A process by its pid, and by what tells it from a later one of that number."""
_VERSION = 1
_FILE = "doubtful.json"
_LARGEST = 1 << 20
LOOK_SECONDS = 1.0
"""Between two looks at what is followed."""
_BEGUN = "SELECT id, path FROM ValidPaths WHERE deriver = ? AND registrationTime >= ?"
_ID = "SELECT id FROM ValidPaths WHERE path = ?"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was last seen at a scratch path. Times are Unix times."""

    deriver: Deriver
    covering: tuple[str, ...]
    file_id: FileId | None = None
    holder: Holder | None = None
    """The process that was last seen to hold one of its locks."""
    seen: float = 0.0
    left: float | None = None
    """When it was known at the latest that its builder had left it; None while that is not so."""
    used: bool = False
    """It was left, and a build of it was then seen at work."""
    gone: bool = False
    """It was left, and is not there any more."""


@dataclass(slots=True)
class Remains:
    """What is followed, and what came of it."""

    store_dir: StoreDir
    log: Callable[..., object]
    """Takes an event and its fields."""
    hears: bool = False
    """Whether all that is made is told of by name (`made`)."""
    sightings: dict[str, Sighting] = field(default_factory=dict)
    """By the name of the scratch path."""
    doubtful: dict[str, Doubtful] = field(default_factory=dict)
    """By name the valid paths that were built on what an interrupted build left."""
    rebuilt: dict[str, str] = field(default_factory=dict)
    """Those of which a build is under way beside them, and what it makes there, until that is gone.
    """

    # What it is told

    def follow(self, findings: Iterable[Finding]) -> None:
        """Follow what a closer look has found at the place of a known output."""
        for one in findings:
            if one.kind is EntryKind.OUTPUT and one.deriver and one.covering:
                made_at = scratch_path(one.deriver.derivation, one.deriver.output, self.store_dir)
                if one.base_name == made_at.base_name:  # anywhere else Nix clears it away first
                    fresh = Sighting(one.deriver, one.covering)
                    self.sightings.setdefault(one.base_name, fresh)

    def made(self, name: str) -> None:
        """Something of that name was made: whatever was followed there has gone before."""
        if (sighting := self.sightings.get(name)) is not None:
            self.sightings[name] = Sighting(sighting.deriver, sighting.covering)
        for reading in parse_lock_name(name):
            if reading.output is not None:
                deriver = Deriver(reading.locked, reading.output)
                for path in covered_paths(name, self.store_dir):
                    self.sightings.setdefault(path.base_name, Sighting(deriver, (name,)))
        for one in [*self.doubtful.values()] if self.doubtful else ():
            self._notice_rebuild(name, one)

    def _notice_rebuild(self, name: str, one: Doubtful) -> None:
        """Of `--check` and `--rebuild` nobody tells how they ended, not even Nix.

        The builder writes at the redirect of the path; and when it has ended, Nix locks the path
        that its result belongs at (`registerOutputs`, 2.8.1, 2.26.4, 2.34.6): if that is this very
        path, the result was the same. A helper of ours takes that lock as well, but of what was
        left alone, which ends the rebuild in `look` or `asked`.
        """
        drv, path = StorePath(one.derivation), StorePath(one.name)
        if name == redirect_path(drv, path, self.store_dir).base_name:
            self.rebuilt[one.name] = name
        elif name == f"{one.name}{LOCK_SUFFIX}" and one.name in self.rebuilt:
            self._forget(one, "it was built again, and the result was the same")

    def asked(self, names: Collection[str]) -> None:
        """A helper is to remove these: what locks the paths that they stand for is no build."""
        self.rebuilt = {one: made for one, made in self.rebuilt.items() if made not in names}

    def heard(self, outcome: Outcome) -> None:
        """A helper has done that: on what it has taken out of the store nothing is built."""
        if outcome.status in {Status.TAKEN, Status.REMOVED, Status.PARTIAL}:
            self.sightings.pop(outcome.base_name, None)

    def lost_count(self) -> None:
        """Nobody knows what was made meanwhile."""
        self.sightings.clear()
        self.rebuilt.clear()

    # What it looks at

    def look(self, seen: Observation, now: float) -> bool:
        """Look at all that is followed; whether anything new has become doubtful. `now` is Unix.

        `StoreUnreadableError` where the database is needed and cannot be read.
        """
        if seen.holders is None:
            return False  # then nobody can tell one build from another
        before = len(self.doubtful)
        for name, sighting in [*self.sightings.items()]:
            entry = _there(seen, name)
            holders = sorted(seen.holders_of(sighting.covering))
            holder = (holders[0], processes.identified(holders[0])) if holders else None
            if not self.hears:  # its inode may be that of one that has gone
                sighting = replace(sighting, holder=None)  # noqa: PLW2901
            latest = after(sighting, entry.file_id if entry else None, holder, now)
            if latest is not None and latest.gone and latest.holder is None:
                if sighting.gone and (latest.used or self.hears):
                    self._find_what_came_of(seen, name, latest)
                latest = None if sighting.gone else latest
            if latest is None:
                del self.sightings[name]
            else:
                self.sightings[name] = latest
        for name, made in [*self.rebuilt.items()]:
            one = self.doubtful[name]
            if seen.holders_of([output_lock(StorePath(one.derivation), one.output)]):
                continue
            left = _there(seen, made) if made else None
            if made and not (left and seen.store.build_users.own(left.uid, left.gid)):
                # Its result was looked at, which makes it the store owner's (2.8 leaves it there).
                # Of the lock that was taken for that the system may not have told yet.
                self.rebuilt[name] = ""
            else:
                del self.rebuilt[name]
        return len(self.doubtful) > before

    def _find_what_came_of(self, seen: Observation, name: str, sighting: Sighting) -> None:
        drv, left = sighting.deriver.derivation, sighting.left or 0.0
        with seen.database() as connection:
            full = self.store_dir.join(drv.base_name)
            rows = connection.execute(_BEGUN, (full, int(left))).fetchall()
        for number, text in rows:
            path = StorePath.maybe(str(text).removeprefix(f"{self.store_dir.path}/"))
            if path is not None and path.name == StorePath(name).name:
                one = Doubtful(
                    path.base_name, number, drv.base_name, sighting.deriver.output, name, left
                )
                self.doubtful[path.base_name] = one
                self.log(
                    BUILT_ON_REMAINS,
                    path=self.store_dir.join(one.name),
                    derivation=full,
                    output=one.output,
                )

    def check(self, seen: Observation, names: Collection[str] | None = None) -> bool:
        """Forget what is not valid any more, or is registered anew; whether anything was.

        Of those names, or all. `StoreUnreadableError` where the database cannot be read.
        """
        before = len(self.doubtful)
        chosen = [one for one in self.doubtful.values() if names is None or one.name in names]
        for one in chosen:
            with seen.database() as connection:
                row = connection.execute(_ID, (self.store_dir.join(one.name),)).fetchone()
            if row is None:
                self._forget(one, "it is gone")
            elif row[0] != one.registered:
                self._forget(one, "it was deleted and built anew, and is the same")
        return len(self.doubtful) < before

    def _forget(self, one: Doubtful, why: str) -> None:
        self.doubtful.pop(one.name, None)
        self.rebuilt.pop(one.name, None)
        self.log("doubtful no more", path=self.store_dir.join(one.name), reasons=why)

    # What outlives it

    def keep(self, directory: str) -> None:
        """Write down what is doubtful, for the next service. `OSError` where it cannot be."""
        place = f"{directory}/{_FILE}"
        if not self.doubtful and not os.path.exists(place):
            return
        rows = [asdict(one) for one in self.doubtful.values()]
        text = json.dumps({"version": _VERSION, "doubtful": rows})
        replace_file(place, text.encode("ascii"))

    def recall(self, directory: str) -> str:
        """Read what an earlier service has kept; why that could not be, "" if it could.

        What is not understood is set aside.
        """
        place = f"{directory}/{_FILE}"
        try:
            with os.fdopen(open_regular(place, os.O_RDONLY), "rb") as file:
                rows = _parsed(file.read(_LARGEST + 1))
        except FileNotFoundError:
            return ""
        except (OSError, StorewardenError, ValueError, TypeError, RecursionError) as cause:
            with suppress(OSError):
                os.rename(place, f"{place}.broken")
            return f"what was known of doubtful paths is lost: {place}: {cause}; set aside there"
        self.doubtful = {one.name: one for one in rows}
        return ""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to look at again."""
        return not self.sightings and not self.rebuilt


def _there(seen: Observation, name: str) -> Entry | None:
    with suppress(OSError):
        return look(seen.store_fd, name)
    return None


def after(
    last: Sighting, file_id: FileId | None, holder: Holder | None, now: float
) -> Sighting | None:
    """What is to be remembered of a scratch path where that is seen now; None if nothing is."""
    same = file_id is not None and last.file_id in {None, file_id}
    if not same and last.left is not None:
        # Its build is at its end, or whoever cleared it away has gone.
        return replace(last, holder=holder, gone=True)
    if not same and holder is None:
        return None if file_id is None else Sighting(last.deriver, last.covering, file_id, left=now)
    if not same:
        return Sighting(last.deriver, last.covering, file_id, holder, now)
    left = last.left
    if holder is None:
        left = now if left is None else left
    elif left is None and last.file_id and last.holder not in {None, holder}:
        left = last.seen  # who held it then had not ended yet, or it would lie elsewhere
    used = last.used or (left is not None and holder is not None)
    holder = holder or last.holder
    return replace(last, file_id=file_id, holder=holder, seen=now, left=left, used=used, gone=False)


def _parsed(text: bytes) -> Iterator[Doubtful]:
    if len(text) > _LARGEST:
        raise ValueError(f"it is longer than {_LARGEST} bytes")
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError(f"it is not of version {_VERSION}")
    rows: tuple[Doubtful, ...] = typed(tuple[Doubtful, ...], document.get("doubtful"))
    for one in rows:
        drv = StorePath(one.derivation)  # which refuses any other name
        named = [StorePath(name) for name in (one.name, one.scratch)]
        lock = parse_lock_name(output_lock(drv, one.output))
        if not drv.is_derivation or not lock or named[0].name != named[1].name:
            raise ValueError(f"{one.name} is no output of {one.derivation}")
    return iter(rows)
