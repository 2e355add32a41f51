# SPDX-License-Identifier: MIT
"""Finishing what an interrupted run left: purge it, or put it back, and tell the log which."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from storewarden.errors import reason_of
from storewarden.helper.audit import COUNTS, AuditLog, result_of
from storewarden.helper.claims import hold_collector, hold_path
from storewarden.helper.facts import in_database
from storewarden.helper.private import Private, old_private
from storewarden.helper.removal import Purged, purge, put_back
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, Status
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind, each_name, look, opened_anew
from storewarden.store.fact import Fact, Known
from storewarden.store.paths import StorePath, parse_lock_name, path_lock
from storewarden.store.store import Store

_AGAIN = "an earlier removal of it was interrupted"
_LONG = "it takes long, the next run goes on with it"
_MOST = 64
"""Private directories that are purged in one run: each has a descriptor."""

_Intent = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Leftover:
    """A private directory of an earlier run, in which all may go, and what its intent says."""

    private: Private
    base_name: str
    intent: _Intent


def conclude_unmoved(store_fd: int, log: AuditLog) -> Iterator[Outcome]:
    """Conclude the intents whose entry lies in no private directory; an outcome for each.

    Before anything is taken anew: what stands at its name now tells what became of it.
    """
    for op, intent in list(log.open_intents.items()):
        name, private = str(intent.get("name")), str(intent.get("private"))
        try:
            if private.startswith(PRIVATE_PREFIX):
                with suppress(OSError):  # something lies in it, or it is gone already
                    os.rmdir(private, dir_fd=store_fd)
                if look(store_fd, private) is not None:
                    continue
            entry = look(store_fd, name)
        except (OSError, ValueError) as cause:  # no name at all
            yield _failed(name, cause)
            continue
        status, when = Status.REMOVED, "after it was gone"
        if entry is not None and (entry.device, entry.inode) == _seen(intent):
            status, when = Status.KEPT, "before it was moved"
        log.append("result", op=op, name=name, status=status.value, resumed=1)
        yield Outcome(name, status, (f"{_AGAIN} {when}",))


def settle(
    store: Store, store_fd: int, log: AuditLog, stack: ExitStack, to_purge: list[Leftover]
) -> Iterator[Outcome]:
    """Put back what earlier runs left and may be wanted, or let it wait; an outcome for each.

    What may go comes into `to_purge`, and is ours until the stack ends. The audit log's flock is
    ours, and so is each private directory's, so nobody is at work there.
    """
    for name in each_name(store_fd):
        if not name.startswith(PRIVATE_PREFIX):
            continue
        begun = (*log.open_intents.values(), *log.partial.values())
        intent: _Intent = next((one for one in begun if one.get("private") == name), {})
        base_name = str(intent.get("name", name))
        with ExitStack() as opened:
            private = opened.enter_context(old_private(store_fd, name))
            if private is None:
                continue
            try:
                whole, left = _listed(private)
                base_name = whole[0].base_name if whole else base_name
                nix = store.ask_nix(whole) if whole else {}
                looked = (_wanted(store, store_fd, private, p, nix.get(p), intent) for p in whole)
                outcome = next(filter(None, looked), None)
            except OSError as cause:
                outcome = _failed(base_name, cause)
            if outcome is not None:
                yield _record(log, intent, outcome)
            elif left and len(to_purge) < _MOST:
                to_purge.append(Leftover(private, base_name, intent))
                stack.enter_context(opened.pop_all())


def finish(log: AuditLog, left: Leftover, until: float) -> Outcome:
    """Purge what an earlier run left, and count on from what is on record."""
    purged = purge(left.private, Purged(until=until, **_so_far(left.intent)))
    return _record(log, left.intent, purged_outcome(left.base_name, purged))


def purged_outcome(base_name: str, purged: Purged) -> Outcome:
    """The outcome of a purge."""
    counts = {key: getattr(purged, key) for key in COUNTS}
    if not (purged.late or purged.failures):
        return Outcome(base_name, Status.REMOVED, **counts)
    why = _LONG if purged.late else f"{purged.failures} left: {purged.reason}"
    return Outcome(base_name, Status.PARTIAL, (why,), **counts)


def _listed(private: Private) -> tuple[list[StorePath], bool]:
    """What is whole there, and so still has its name; and whether there is anything at all."""
    with opened_anew(private.fd) as fd, os.scandir(fd) as entries:
        found = [StorePath.maybe(entry.name) for entry in entries]  # there may be millions
    return [path for path in found if path is not None], bool(found)


def _wanted(
    store: Store,
    store_fd: int,
    private: Private,
    path: StorePath,
    nix: Fact | None,
    intent: _Intent,
) -> Outcome | None:
    """The outcome for what lies there whole and waits, or has been put back; None: it may go."""
    name = path.base_name
    known = {in_database(store, path).known, nix.known if nix else Known.UNKNOWN}
    moved, again = look(private.fd, name), look(store_fd, name)
    # Without an intent nothing contradicts.
    proved = moved is None or not intent or (moved.device, moved.inode) == _seen(intent)
    if proved and (known == {Known.NO} or (again and Known.UNKNOWN not in known)):
        return None  # dead; or what is valid, or being built, is there again, and this is not it
    if Known.UNKNOWN in known and Known.YES not in known:
        reason = f"{_AGAIN}; whether it is valid cannot be told, so it waits in {private.name}"
        return Outcome(name, Status.KEPT, (reason,), unproved=True)
    covered = intent.get("deriver") or intent.get("kind") == EntryKind.CHROOT
    with ExitStack() as locks:
        free = _hold_all(locks, store, store_fd, path, intent)
        # Who builds or copies what is valid takes the lock of its path, and needs no other.
        if not covered and Known.YES not in known:
            free = Fact(Known.UNKNOWN, "which locks cover it is not known")
        if free.known is Known.NO:
            later = covered and look(store_fd, name)
            if moved and later and store.build_users.own(moved.uid, moved.gid):
                return None  # no build of it is alive, and what came later has its place
            try:
                put_back(store_fd, name, private)
            except OSError as cause:
                free = Fact(Known.UNKNOWN, reason_of(cause))
    if free.known is not Known.NO:
        why = f"it may be wanted, and {CANNOT_BE_PUT_BACK} from {private.name} yet: {free.detail}"
        return Outcome(name, Status.FAILED, (f"{_AGAIN}; {why}",))
    why = "it is valid" if Known.YES in known else "it is not what was proved dead"
    return Outcome(name, Status.KEPT, (f"{_AGAIN}; {why}, so it was put back",))


def _hold_all(
    locks: ExitStack, store: Store, store_fd: int, path: StorePath, intent: _Intent
) -> Fact:
    """Hold the locks that covered it when it was taken; NO: they were free.

    So nothing is put between a build and the output that it makes.
    """
    recorded = intent.get("locks")
    names = map(str, recorded) if isinstance(recorded, list) else ()
    free = hold_collector(locks, store.state_dir)
    for name in sorted({path_lock(path), *filter(parse_lock_name, names)}):
        if free.known is Known.NO:
            held = hold_path(locks, store_fd, name)
            free = held if isinstance(held, Fact) else free
    return free


def _seen(intent: _Intent) -> tuple[object, object]:
    return intent.get("device"), intent.get("inode")


def _so_far(intent: _Intent) -> dict[str, Any]:
    """What earlier runs have counted, as far as it is on record."""
    return {key: intent.get(key, 0) for key in COUNTS}


def _failed(name: str, cause: Exception) -> Outcome:
    return Outcome(name, Status.FAILED, (f"{_AGAIN}; {cause}",))


def _record(log: AuditLog, intent: _Intent, outcome: Outcome) -> Outcome:
    members, op = {**result_of(outcome), "resumed": 1}, intent.get("seq")
    same = op not in log.open_intents and _so_far(members) == _so_far(intent)
    if outcome.unproved or outcome.status is Status.FAILED:
        return outcome  # it waits, and its intent stays open
    if outcome.status is Status.PARTIAL and same:
        return outcome  # nothing was done, and it would be said at every run
    if intent:
        log.append("result", op=op, **members)
    else:
        log.append("resumed", **members)
    return outcome
