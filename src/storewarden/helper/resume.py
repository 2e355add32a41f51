# SPDX-License-Identifier: MIT
"""Finishing what an interrupted run left: purge it, or put it back, and tell the log which."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

from storewarden.helper.audit import AuditLog
from storewarden.helper.claims import hold_path
from storewarden.helper.facts import in_database
from storewarden.helper.private import Private, old_private
from storewarden.helper.removal import Purged, purge, put_back
from storewarden.store.entries import PRIVATE_PREFIX, list_names, look
from storewarden.store.paths import StorePath, path_lock
from storewarden.store.store import Store
from storewarden.store.verdict import Fact, Known
from storewarden.store.wire import Outcome, Status

_AGAIN = "an earlier removal of it was interrupted"
_LONG = "it takes long, the next run goes on with it"


def resume(store: Store, store_fd: int, log: AuditLog) -> Iterator[Outcome]:
    """Finish or undo what private directories and open intents show; an outcome for each.

    The audit log's flock is ours, and so is each private directory's, so nobody is at work there.
    """
    for name in list_names(store_fd):
        if name.startswith(PRIVATE_PREFIX):
            with old_private(store_fd, name) as private:
                try:
                    yield from _finish(store, store_fd, log, private) if private else ()
                except OSError as cause:
                    yield Outcome(name, Status.FAILED, (f"{_AGAIN}; {cause}",))
    for op, intent in list(log.open_intents.items()):
        private_name = str(intent.get("private"))
        if private_name and look(store_fd, private_name) is not None:
            continue  # it waits there, for a reason that was given above
        outcome = _without_private(store_fd, intent)
        log.append("result", op=op, name=outcome.base_name, status=outcome.status.value, resumed=1)
        yield outcome


def purged_outcome(base_name: str, purged: Purged) -> Outcome:
    """The outcome of a purge."""
    why = _LONG if purged.late else f"{purged.failures} left: {purged.reason}"
    left = purged.late or purged.failures
    return Outcome(
        base_name,
        Status.PARTIAL if left else Status.REMOVED,
        (why,) if left else (),
        files=purged.files,
        directories=purged.directories,
        bytes=purged.bytes,
    )


def _finish(store: Store, store_fd: int, log: AuditLog, private: Private) -> Iterator[Outcome]:
    """Purge the private directory, unless what lies in it whole may be valid after all."""
    begun = log.open_intents | log.partial
    intents = {op: intent for op, intent in begun.items() if intent.get("private") == private.name}
    with os.scandir(private.fd) as entries:  # there may be millions, so no names are kept
        found = [StorePath.maybe(entry.name) for entry in entries]
    whole = [path for path in found if path is not None]
    base_name = whole[0].base_name if whole else _name_of(intents, private.name)
    if whole:
        kept = _keep_or_put_back(store, store_fd, whole, private, intents)
        if kept is not None:
            yield _record(log, intents, kept)
            return
    if found:
        yield _record(log, intents, purged_outcome(base_name, purge(private)))


def _keep_or_put_back(
    store: Store,
    store_fd: int,
    whole: list[StorePath],
    private: Private,
    intents: dict[int, dict[str, object]],
) -> Outcome | None:
    answers = store.ask_nix(whole)
    for path in whole:
        nix = answers.get(path, Fact(Known.UNKNOWN))
        known = {in_database(store, path).known, nix.known}
        name = path.base_name
        proved = _is_what_was_proved(private, name, intents)
        if known == {Known.NO} and proved:
            continue
        if proved and Known.UNKNOWN not in known and look(store_fd, name) is not None:
            continue  # what is valid, or being built, is there again; this is not it
        if Known.UNKNOWN in known and Known.YES not in known:
            reason = f"{_AGAIN}; whether it is valid cannot be told, so it waits in {private.name}"
            return Outcome(name, Status.KEPT, (reason,), unproved=True)
        try:
            _put_back(store_fd, path, private)
        except OSError as cause:
            reason = f"{_AGAIN}; it may be wanted, but stays in {private.name}: {cause}"
            return Outcome(name, Status.FAILED, (reason,))
        why = "it is valid" if Known.YES in known else "it is not what was proved dead"
        return Outcome(name, Status.KEPT, (f"{_AGAIN}; {why}, so it was put back",))
    return None


def _put_back(store_fd: int, path: StorePath, private: Private) -> None:
    """`put_back` under the lock of the path: not between a build and the output it makes."""
    with ExitStack() as locks:
        lock = hold_path(locks, store_fd, path_lock(path))
        if isinstance(lock, Fact):
            raise BlockingIOError(errno.EWOULDBLOCK, lock.detail)
        put_back(store_fd, path.base_name, private)


def _is_what_was_proved(private: Private, name: str, intents: dict[int, dict[str, object]]) -> bool:
    """Whether an intent speaks of this very object; without intents nothing contradicts."""
    moved = look(private.fd, name)
    seen = [(i.get("device"), i.get("inode")) for i in intents.values() if i.get("name") == name]
    return moved is None or not seen or (moved.device, moved.inode) in seen


def _without_private(store_fd: int, intent: dict[str, object]) -> Outcome:
    name = str(intent.get("name", ""))
    entry = look(store_fd, name)
    seen = (intent.get("device"), intent.get("inode"))
    if entry is not None and (entry.device, entry.inode) == seen:
        return Outcome(name, Status.KEPT, (f"{_AGAIN} before it was moved",))
    return Outcome(name, Status.REMOVED, (f"{_AGAIN} after it was gone",))


def _name_of(intents: dict[int, dict[str, object]], default: str) -> str:
    return next((str(intent.get("name")) for intent in intents.values()), default)


def _record(log: AuditLog, intents: dict[int, dict[str, object]], outcome: Outcome) -> Outcome:
    members = {
        "name": outcome.base_name,
        "status": outcome.status.value,
        "reasons": list(outcome.reasons),
        "files": outcome.files,
        "directories": outcome.directories,
        "bytes": outcome.bytes,
        "resumed": 1,
    }
    # Nothing was done, and that much is on record already; it would be said at every run.
    idle = outcome.status is Status.PARTIAL and not outcome.files + outcome.directories
    idle = idle and log.open_intents.keys().isdisjoint(intents)
    waits = outcome.unproved or outcome.status is Status.FAILED or idle
    for op in () if waits else tuple(intents):
        log.append("result", op=op, **members)
    if not intents and not idle:
        log.append("resumed", **members)
    return outcome
