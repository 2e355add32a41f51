# SPDX-License-Identifier: MIT
"""What has left a store, as inotify saw it, and by whose doing: ours on record, or Nix's own.

Who did it is not told. So each time a name has left there must be a reason: the audit log has it,
a collector says that it deleted it, or Nix put something else there: a copy, something else that
it moved there, or what it then registered. Its temporary names and its locks come and go.
"""

import contextlib
import ctypes
import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from storewarden.protocol import Status
from storewarden.store.paths import LOCK_SUFFIX

_MOVED_FROM, _MOVED_TO, _MADE, _DELETED, _OVERFLOW = 0x40, 0x80, 0x100, 0x200, 0x4000
_HEAD = struct.Struct("iIII")
_SECONDS = 0.1
_TEMPORARY = ("tmp-", "add-", ".tmp-link-")
_REMOVED = {Status.REMOVED.value, Status.PARTIAL.value}


@dataclass(slots=True)
class Seen:
    """What inotify has told of the names in a store."""

    trail: list[tuple[str, str]] = field(default_factory=list)
    """In this order, each with its name: made, left, renamed (to another of the store), replaced
    (by one that was renamed)."""
    moved: list[tuple[str, str]] = field(default_factory=list)
    going: dict[int, int] = field(default_factory=dict)
    """Where in the trail a move began, by inotify's number of it."""
    overflown: bool = False

    def add(self, data: bytes) -> None:
        """Take what was read from inotify."""
        at = 0
        while at < len(data):
            _, mask, cookie, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            self.overflown |= bool(mask & _OVERFLOW)
            if mask & _MOVED_FROM:
                self.going[cookie] = len(self.trail)
            if mask & (_MOVED_FROM | _DELETED):
                self.trail.append(("left", name))
            elif mask & _MOVED_TO and (began := self.going.pop(cookie, None)) is not None:
                _, old = self.trail[began]
                self.trail[began] = "renamed", old
                self.trail.append(("replaced", name))
                self.moved.append((old, name))
            elif mask & (_MADE | _MOVED_TO):
                self.trail.append(("made", name))

    def left(self) -> Counter[str]:
        """How often each name has left."""
        return Counter(name for what, name in self.trail if what == "left")

    def made_way(self, registered: Collection[str]) -> Counter[str]:
        """How often each has left for what Nix put there: a copy of it, which stands beside it
        before that, something else that it moved there, or what it wrote and registered.

        Or it was such a copy, and what it was to be moved to was valid already: Nix deletes it
        (derivation-builder.cc `registerOutputs`, 2.34.8), as where its worker was killed after it
        had registered the path and before the realisation.
        """
        found, now = Counter[str](), dict[str, str]()
        after = self._next()
        for place, (what, name) in enumerate(self.trail):
            copy, before, then = now.get(f"{name}.tmp"), now.get(name), after.get(place)
            found[name] += what == "left" and (
                copy == "made"
                or then == "replaced"
                or (then == "made" and name in registered)
                or (copy == "renamed" and before == "replaced" and name not in registered)
            )
            now[name] = what
        return found

    def _next(self) -> dict[int, str]:
        """What is next in the trail of the same name, by the place in it."""
        found, then = dict[int, str](), dict[str, str]()
        for place, (what, name) in reversed([*enumerate(self.trail)]):
            if name in then:
                found[place] = then[name]
            then[name] = what
        return found


@contextlib.contextmanager
def watching_what_leaves(store: str) -> Iterator[Seen]:
    """While it is seen what leaves that directory; complete at the end."""
    libc, seen, stop = ctypes.CDLL(None, use_errno=True), Seen(), threading.Event()
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    mask = _MOVED_FROM | _MOVED_TO | _MADE | _DELETED
    assert libc.inotify_add_watch(fd, os.fsencode(store), mask) >= 0, store

    def read() -> None:
        ended = False
        while not ended:
            ended = stop.is_set()
            select.select([fd], [], [], 0 if ended else _SECONDS)
            with contextlib.suppress(BlockingIOError):
                while True:
                    seen.add(os.read(fd, 1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        os.close(fd)


def unexplained(
    seen: Seen,
    records: Collection[Mapping[str, object]],
    deleted: Iterable[str],
    registered: Collection[str],
) -> list[str]:
    """What has left and nobody had a reason for, and what we have on record that nobody saw.

    `records` are the audit log's; `deleted` the names that collectors say they deleted, each time;
    `registered` those that were valid at any time.
    """
    intents = {one["seq"]: str(one["name"]) for one in records if one["action"] == "intent"}
    results = [one for one in records if one["action"] == "result" and "resumed" not in one]
    ours = Counter(intents[one["op"]] for one in results if one["status"] in _REMOVED)
    reasons = Counter([*intents.values(), *deleted]) + seen.made_way(registered)
    left = seen.left()
    return [
        *["inotify lost count"] * seen.overflown,
        *(
            f"{name} has left {times} times, with {reasons[name]} reasons"
            for name, times in left.items()
            if times > reasons[name] and not _is_fleeting(name)
        ),
        *(
            f"{old} was moved to {new}, which was never valid, and stays"
            for old, new in seen.moved
            if new not in {*registered, *left} and not _is_fleeting(old) and not _is_fleeting(new)
        ),
        *(
            f"{name} is on record as removed {times} times, and left {left[name]} times"
            for name, times in ours.items()
            if times > left[name]
        ),
    ]


def _is_fleeting(name: str) -> bool:
    """Whether Nix makes and removes names like it at any time, or we do on the way."""
    return name.startswith(_TEMPORARY) or name.endswith((LOCK_SUFFIX, ".tmp"))
