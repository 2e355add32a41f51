# SPDX-License-Identifier: MIT
"""Finishing what an interrupted run left: purge it, or put it back, and tell the log which."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto

from storewarden.audit import Intent, Result, counts_of, result_of
from storewarden.errors import reason_of
from storewarden.helper.audit import AuditLog
from storewarden.helper.hold import NotHeldError, awaited, hold_collector, hold_path, in_database
from storewarden.helper.purge import Private, Purged, old_private, purge, put_back
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, Status
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind, each_name, look, opened_anew
from storewarden.store.paths import StorePath, parse_lock_name, path_lock
from storewarden.store.store import NO, UNKNOWN, Known, Store

_AGAIN = "an earlier removal of it was interrupted"
_LONG = "it takes long, the next run goes on with it"
_MOST = 64
"""Private directories that are purged in one run: each has a descriptor."""


class Fate(Enum):
    """What is done with what lies whole in a private directory."""

    PURGE = auto()
    WAIT = auto()
    PUT_BACK = auto()


def fate(nix: Known, database: Known, *, is_what_was_proved: bool, is_there_again: bool) -> Fate:
    """What becomes of it, by who says that it is valid, and by what has its name now."""
    valid, unsure = Known.YES in {nix, database}, Known.UNKNOWN in {nix, database}
    match valid, unsure, is_what_was_proved, is_there_again:
        case False, False, True, _:
            return Fate.PURGE  # dead, as it was
        case True, False, True, True:
            return Fate.PURGE  # what is valid is there, and this is not it
        case False, True, _, _:
            return Fate.WAIT
        case _:
            return Fate.PUT_BACK  # it is valid, or another than was proved dead


@dataclass(frozen=True, slots=True)
class Leftover:
    """A private directory of an earlier run, its flock ours."""

    private: Private
    intent: Intent
    """What was to be removed; without a number, and of the directory's name, if none is known."""

    def contents(self) -> tuple[list[StorePath], bool]:
        """What is whole there, and so still has its name; and whether there is anything at all."""
        with opened_anew(self.private.fd) as fd, os.scandir(fd) as entries:
            found = [StorePath.maybe(entry.name) for entry in entries]  # there may be millions
        return [path for path in found if path is not None], bool(found)

    def record(self, log: AuditLog, outcome: Outcome) -> Outcome:
        """Tell the log, unless it waits, or nothing was done: that would be told at every run."""
        op = self.intent.seq
        waits = outcome.unproved or outcome.status is Status.FAILED
        recorded = op not in log.chain.open_intents and counts_of(outcome) == counts_of(self.intent)
        if not waits and not (outcome.status is Status.PARTIAL and recorded):
            log.append(result_of(outcome, op, resumed=1))
        return outcome


def conclude_unmoved(store_fd: int, log: AuditLog) -> Iterator[Outcome]:
    """Conclude the intents whose entry lies in no private directory; an outcome for each.

    Before anything is taken anew: what stands at its name now tells what became of it.
    """
    for op, intent in list(log.chain.open_intents.items()):
        name = intent.name
        try:
            if intent.private.startswith(PRIVATE_PREFIX):
                with suppress(OSError):  # something lies in it, or it is gone already
                    os.rmdir(intent.private, dir_fd=store_fd)
                if look(store_fd, intent.private) is not None:
                    continue
            entry = look(store_fd, name)
            os.fsync(store_fd)  # whoever was killed has not, and what is concluded is done with
        except (OSError, ValueError) as cause:  # no name at all
            yield _failed(name, cause)
            continue
        status, when = Status.REMOVED, "after it was gone"
        if entry is not None and entry.file_id == intent.file_id:
            status, when = Status.KEPT, "before it was moved"
        log.append(Result(op=op, name=name, status=status.value, resumed=1))
        yield Outcome(name, status, (f"{_AGAIN} {when}",))


def sort_out(
    store: Store, store_fd: int, log: AuditLog, stack: ExitStack, to_purge: list[Leftover]
) -> Iterator[Outcome]:
    """Put back what earlier runs left and may be wanted, or let it wait; an outcome for each.

    What may go comes into `to_purge`, and is ours until the stack ends. The audit log's flock is
    ours, and so is each private directory's, so nobody is at work there.
    """
    for name in each_name(store_fd):
        if not name.startswith(PRIVATE_PREFIX):
            continue
        begun = (*log.chain.open_intents.values(), *log.chain.partial.values())
        intent = next((one for one in begun if one.private == name), Intent(name=name))
        base_name = intent.name
        with ExitStack() as opened:
            private = opened.enter_context(old_private(store_fd, name))
            if private is None:
                continue
            left = Leftover(private, intent)
            try:
                whole, some = left.contents()
                base_name = whole[0].base_name if whole else base_name
                nix = store.ask_nix(whole) if whole else {}
                looked = (
                    _settle_one(store, store_fd, left, path, nix.get(path, UNKNOWN).known)
                    for path in whole
                )
                outcome = next(filter(None, looked), None)
            except OSError as cause:
                outcome = _failed(base_name, cause)
            if outcome is not None:
                yield left.record(log, outcome)
            elif some and len(to_purge) < _MOST:
                to_purge.append(replace(left, intent=replace(intent, name=base_name)))
                stack.enter_context(opened.pop_all())


def finish(log: AuditLog, left: Leftover, until: float) -> Outcome:
    """Purge what an earlier run left, and count on from what is on record."""
    purged = purge(left.private, Purged(until=until, **counts_of(left.intent)))
    return left.record(log, purged_outcome(left.intent.name, purged))


def purged_outcome(base_name: str, purged: Purged) -> Outcome:
    """The outcome of a purge."""
    counts = counts_of(purged)
    if not (purged.late or purged.failures):
        return Outcome(base_name, Status.REMOVED, **counts)
    why = _LONG if purged.late else f"{purged.failures} left: {purged.reason}"
    return Outcome(base_name, Status.PARTIAL, (why,), **counts)


def _settle_one(
    store: Store, store_fd: int, left: Leftover, path: StorePath, nix: Known
) -> Outcome | None:
    """The outcome for what lies there whole and waits, or has been put back; None: it may go."""
    name, private, intent = path.base_name, left.private, left.intent
    database = in_database(store, path).known
    moved, again = look(private.fd, name), look(store_fd, name)
    # Without an intent nothing contradicts.
    proved = moved is None or intent.seq is None or moved.file_id == intent.file_id
    valid = Known.YES in {nix, database}
    # Who was killed right after the move had not asked whether its locks held till then.
    live = NO if valid else awaited(store, path, intent.deriver)
    match fate(nix, database, is_what_was_proved=proved, is_there_again=again is not None):
        case Fate.PURGE if live.known is Known.NO:
            return None
        case Fate.PURGE | Fate.WAIT as fated:
            what = (
                "it is valid" if fated is Fate.WAIT else f"a build of it is alive ({live.detail})"
            )
            reason = f"whether {what} cannot be told, so it waits in {private.name}"
            return Outcome(name, Status.KEPT, (f"{_AGAIN}; {reason}",), unproved=True)
    try:
        if not _went_back(store, store_fd, left, path, valid=valid):
            return None
    except NotHeldError as cause:
        why = f"it may be wanted, and {CANNOT_BE_PUT_BACK} from {private.name} yet: {cause}"
        return Outcome(name, Status.FAILED, (f"{_AGAIN}; {why}",))
    why = "it is valid" if valid else "it is not what was proved dead"
    return Outcome(name, Status.KEPT, (f"{_AGAIN}; {why}, so it was put back",))


def _went_back(
    store: Store, store_fd: int, left: Leftover, path: StorePath, *, valid: bool
) -> bool:
    """Put it back under all locks that covered it when it was taken; False where it may go.

    So nothing is put between a build and the output that it makes. `NotHeldError` says what is in
    the way.
    """
    intent, name = left.intent, path.base_name
    covered = bool(intent.deriver) or intent.kind == EntryKind.CHROOT
    # Who builds or copies what is valid takes the lock of its path, and needs no other.
    if not covered and not valid:
        raise NotHeldError(Known.UNKNOWN, "which locks cover it is not known")
    with ExitStack() as locks:
        hold_collector(locks, store.state_dir)
        for lock in sorted({path_lock(path), *filter(parse_lock_name, intent.locks)}):
            hold_path(locks, store_fd, lock)
        moved = look(left.private.fd, name)
        taken = covered and look(store_fd, name) is not None
        if taken and moved and store.build_users.own(moved.uid, moved.gid):
            return False  # no build of it is alive, and what came later has its place
        try:
            put_back(store_fd, name, left.private)
        except OSError as cause:
            raise NotHeldError(Known.UNKNOWN, reason_of(cause)) from cause
    return True


def _failed(name: str, cause: Exception) -> Outcome:
    return Outcome(name, Status.FAILED, (f"{_AGAIN}; {cause}",))
