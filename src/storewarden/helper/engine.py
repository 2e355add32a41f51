# SPDX-License-Identifier: MIT
"""The story of a removal: resume, survey, take, purge, conclude. Readable in one sitting.

Taking happens under Nix's locks and lasts milliseconds, whatever the tree; purging holds none.
Nothing the requester says is believed: a request only points at an entry.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from storewarden import __version__
from storewarden.claims import Verdict, explain, judge
from storewarden.errors import (
    AuditUnavailableError,
    StoreUnreadableError,
    StorewardenError,
    reason_of,
)
from storewarden.helper.audit import AuditLog, result_of
from storewarden.helper.auditfile import open_log
from storewarden.helper.claims import remove_lock_file
from storewarden.helper.facts import Proof, hold_and_look, in_database
from storewarden.helper.private import Private, new_private
from storewarden.helper.removal import Purged, deadlines, purge, put_back, remove_from_store
from storewarden.helper.resume import Leftover, conclude_unmoved, finish, purged_outcome, settle
from storewarden.helper.survey import Survey, survey
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, RemoveRequest, Status
from storewarden.store.entries import Entry, EntryKind, classify, look, open_directory
from storewarden.store.fact import Known
from storewarden.store.paths import StorePath
from storewarden.store.store import Store

Checkpoint = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asked, as the kernel says; for the audit log, not for any decision."""

    uid: int
    pid: int | None
    via: str


@dataclass(frozen=True, slots=True)
class _Work:
    store: Store
    store_fd: int
    log: AuditLog
    survey: Survey
    requester: Requester
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class _Taken:
    """An entry that is out of the store: its intent's number, and where it lies."""

    base_name: str
    op: int
    private: Private


def remove(
    store: Store,
    requests: Sequence[RemoveRequest],
    *,
    audit_log: str,
    requester: Requester,
    checkpoint: Checkpoint = lambda _: None,
) -> Iterator[Outcome]:
    """Remove what of `requests` is proved dead, after finishing what an earlier run left.

    Gives an outcome for each, and TAKEN before that for what has left the store. All are taken
    before any is purged, and before what an earlier run left is looked after, so that builds go
    on as soon as can be. A `StorewardenError` means a broken world; what was taken before it is
    purged all the same. `checkpoint` is called with the name of each step that was reached, so
    that tests can interrupt there.
    """
    # Whoever denies himself what he makes would leave private directories that are no use.
    os.umask(os.umask(0o077) & 0o077)
    store_fd = open_directory(store.view)
    with ExitStack() as stack:
        stack.callback(os.close, store_fd)
        log = stack.enter_context(open_log(audit_log))
        taken: list[_Taken] = []
        left: list[Leftover] = []

        def take_all() -> Iterator[Outcome]:
            seen = survey(store, store_fd, requests)
            work = _Work(store, store_fd, log, seen, requester, checkpoint)
            for request in sorted(requests, key=lambda request: request.turn):
                try:
                    result = _take(work, stack, request)
                except OSError as cause:
                    # It was not moved; or else its intent is open, and the next run settles it.
                    result = _failed(request.base_name, cause)
                if isinstance(result, _Taken):
                    taken.append(result)
                    result = Outcome(result.base_name, Status.TAKEN)
                yield result

        steps = (
            conclude_unmoved(store_fd, log),
            take_all() if requests else (),
            settle(store, store_fd, log, stack, left),
            _purge_all(log, checkpoint, taken, left),
        )
        broken: Exception | None = None
        for step in steps:
            try:
                yield from step
            except (StorewardenError, OSError) as cause:
                broken = broken or cause
        if log.torn:
            broken = broken or AuditUnavailableError("the end of a removal is not on record")
        if isinstance(broken, OSError):
            raise StoreUnreadableError(f"the system ends it: {broken}") from broken
        if broken is not None:
            raise broken


def _purge_all(
    log: AuditLog, checkpoint: Checkpoint, taken: Sequence[_Taken], left: Sequence[Leftover]
) -> Iterator[Outcome]:
    ends = deadlines(len(taken) + len(left))
    for item in taken:
        checkpoint("purging")
        purged = purge(item.private, Purged(until=next(ends)))
        checkpoint("purged")
        yield _conclude(log, item.op, purged_outcome(item.base_name, purged))
    for leftover in left:
        yield finish(log, leftover, next(ends))


def _take(work: _Work, privates: ExitStack, request: RemoveRequest) -> _Taken | Outcome:
    """Prove the entry dead under locks and move it out of the store, or say why not."""
    name = request.base_name
    entry = look(work.store_fd, name)
    if entry is None:
        return Outcome(name, Status.VANISHED)
    if (entry.device, entry.inode) != (request.device, request.inode):
        return Outcome(name, Status.KEPT, ("it is no longer the entry that was looked at",))
    store_uid = os.fstat(work.store_fd).st_uid
    hidden = entry.uid == work.store.hidden_uid
    origin = None if hidden else work.survey.origins.get(StorePath(name))
    kind = classify(entry, origin, store_uid=store_uid, build_users=work.store.build_users)
    if kind is not request.kind:
        return Outcome(name, Status.KEPT, (f"it is of kind {kind}, not {request.kind}",))
    with ExitStack() as locks:
        proof = hold_and_look(locks, work.store, work.store_fd, work.survey, entry, kind)
        judgement = judge(kind, origin, proof.facts)
        if judgement.verdict is not Verdict.REMOVABLE:
            against = [(c, f) for c, f in proof.facts.items() if f.known is not Known.NO]
            unproved = bool(against) and all(fact.known is Known.UNKNOWN for _, fact in against)
            reasons = tuple(explain(claim, fact) for claim, fact in against)
            return Outcome(name, Status.KEPT, reasons or judgement.reasons, unproved=unproved)
        work.checkpoint("proved")
        if kind is EntryKind.LOCK:
            return _remove_lock(work, entry, proof)
        return _take_tree(work, privates, entry, kind, proof)


def _remove_lock(work: _Work, entry: Entry, proof: Proof) -> Outcome:
    op = _intend(work, entry, EntryKind.LOCK, proof, "")
    work.checkpoint("intended")
    try:
        (lock,) = proof.held
        remove_lock_file(work.store_fd, lock)
    except OSError as cause:
        return _conclude(work.log, op, _failed(entry.base_name, cause))
    work.checkpoint("taken")
    return _conclude(work.log, op, Outcome(entry.base_name, Status.REMOVED, files=1))


def _take_tree(
    work: _Work, privates: ExitStack, entry: Entry, kind: EntryKind, proof: Proof
) -> _Taken | Outcome:
    name = entry.base_name
    try:
        private = privates.enter_context(new_private(work.store_fd))
    except OSError as cause:
        return _failed(name, cause)
    op = _intend(work, entry, kind, proof, private.name)
    work.checkpoint("intended")
    failed = _move_out(work, entry, private)
    if failed is not None:
        return _conclude(work.log, op, failed)
    work.checkpoint("taken")
    moved = look(private.fd, name)
    # What another has put there is out of its place until this is done: nothing is asked before.
    if moved is None or not moved.same_object(entry):
        return _put_back(work, op, name, private, "it was replaced at the last moment")
    if in_database(work.store, StorePath(name)).known is not Known.NO:
        return _put_back(work, op, name, private, "it was registered at the last moment")
    return _Taken(name, op, private)


def _move_out(work: _Work, entry: Entry, private: Private) -> Outcome | None:
    """Move it out of the store, if it is still what was proved dead; else what became of it."""
    name = entry.base_name
    # The intent took a disk's time to write. What has come in its place meanwhile stays.
    now = look(work.store_fd, name)
    if now is not None and now != entry:
        return Outcome(name, Status.KEPT, ("it changed at the last moment",))
    work.checkpoint("unchanged")
    try:
        remove_from_store(work.store_fd, name, private)
    except OSError as cause:
        if look(work.store_fd, name) is None:
            return Outcome(name, Status.VANISHED)
        return _failed(name, cause)
    return None


def _put_back(work: _Work, op: int, name: str, private: Private, why: str) -> Outcome:
    try:
        put_back(work.store_fd, name, private)
    except FileNotFoundError:
        return _conclude(work.log, op, Outcome(name, Status.VANISHED))
    except OSError as cause:
        reason = f"{why}, and it {CANNOT_BE_PUT_BACK} from {private.name}: {reason_of(cause)}"
        # The intent of what lies there stays open: it tells that from what was proved dead.
        return Outcome(name, Status.FAILED, (reason,))
    return _conclude(work.log, op, Outcome(name, Status.KEPT, (f"{why}, so it was put back",)))


def _intend(work: _Work, entry: Entry, kind: EntryKind, proof: Proof, private: str) -> int:
    origin = work.survey.origins.get(StorePath(entry.base_name))
    seen = {key: getattr(entry, key) for key in ("device", "inode", "mode", "uid", "gid")}
    return work.log.append(
        "intent",
        **seen,
        program=f"storewarden {__version__}",
        name=entry.base_name,
        kind=kind.value,
        ctime=int(entry.ctime),
        deriver=origin.deriver.derivation.base_name if origin else "",
        output=origin.deriver.output if origin else "",
        locks=[lock.base_name for lock in proof.held],
        absent=[claim.value for claim in proof.facts],
        private=private,
        requester={**asdict(work.requester), "pid": work.requester.pid or 0},
    )


def _conclude(log: AuditLog, op: int, outcome: Outcome) -> Outcome:
    try:
        log.append("result", op=op, **result_of(outcome))
    except AuditUnavailableError as cause:
        # The act is done and its intent is on record; the next run concludes it.
        return replace(outcome, reasons=(*outcome.reasons, str(cause)))
    return outcome


def _failed(name: str, cause: OSError) -> Outcome:
    reason = _ADVICE.get(cause.errno or 0, reason_of(cause))
    return Outcome(name, Status.FAILED, (reason,))


_ADVICE = {
    errno.EROFS: "the store is mounted read-only here",
    errno.EBUSY: "something is mounted on it",
    errno.EXDEV: "the file system cannot move it: on an overlay, it came with the image",
    errno.ENOSPC: "the disk is full, not even a directory can be made in the store",
    errno.EPERM: "the system refuses it: a flag such as chattr +i, or on macOS App Management",
    errno.EIO: "the disk cannot be read there; what the kernel says of it: dmesg",
}
