# SPDX-License-Identifier: MIT
"""The story of a removal: resume, survey, take, purge, conclude. Readable in one sitting.

Taking happens under Nix's locks and lasts milliseconds, whatever the tree; purging holds none.
Nothing the requester says is believed: a request only points at an entry.
"""

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from storewarden import __version__
from storewarden.audit import Intent, Requester, result_of
from storewarden.claims import Facts, Verdict, explain, judge
from storewarden.errors import (
    AuditUnavailableError,
    StoreUnreadableError,
    StorewardenError,
    reason_of,
)
from storewarden.helper.audit import AuditLog, open_log
from storewarden.helper.hold import (
    Survey,
    Witness,
    Worker,
    in_database,
    remove_lock_file,
    survey,
    survey_before_build,
)
from storewarden.helper.purge import (
    PURGE_SECONDS,
    Private,
    Purged,
    deadlines,
    new_private,
    purge,
    put_back,
    remove_from_store,
)
from storewarden.helper.resume import Leftover, conclude_unmoved, finish, purged_outcome, sort_out
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, RemoveRequest, Status
from storewarden.store.entries import Entry, EntryKind, classify, look, open_directory
from storewarden.store.paths import StorePath
from storewarden.store.store import Known, Store

Checkpoint = Callable[[str], None]
_PATIENCE = 0.25
"""Seconds that a build is held up for each thing that can take long."""
_LET_GO = "a lock of it was let go or taken away at the last moment"


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
        batch = _Batch(store, store_fd, log, requester, checkpoint, stack)
        yield from _taken(
            log,
            conclude_unmoved(store_fd, log),
            batch.take_all(requests) if requests else (),
            sort_out(store, store_fd, log, stack, batch.left),
            batch.purge_all(),
        )


def remove_before_build(
    store: Store,
    derivation: StorePath,
    outputs: Collection[str],
    worker: Worker,
    *,
    audit_log: str,
    checkpoint: Checkpoint = lambda _: None,
) -> Iterator[Outcome]:
    """Remove what lies at the scratch paths of those outputs, which that worker is about to build.

    As `remove`, but for what holds a build up: nobody is waited for, purging ends soon, and what an
    earlier run left is not looked after. That is the next one's.
    """
    os.umask(os.umask(0o077) & 0o077)
    store_fd = open_directory(store.view)
    with ExitStack() as stack:
        stack.callback(os.close, store_fd)
        log = stack.enter_context(open_log(audit_log, _PATIENCE))
        requester = Requester(os.geteuid(), worker.pid, "pre-build-hook")
        batch = _Batch(store, store_fd, log, requester, checkpoint, stack)
        seen = survey_before_build(store, derivation, outputs, worker)
        there = filter(None, (look(store_fd, path.base_name) for path in seen.origins))
        requests = [RemoveRequest(e.base_name, EntryKind.OUTPUT, e.file_id) for e in there]
        yield from _taken(
            log,
            conclude_unmoved(store_fd, log),
            batch.take_each(seen, requests),
            batch.purge_all(_PATIENCE),
        )


def _taken(log: AuditLog, *steps: Iterable[Outcome]) -> Iterator[Outcome]:
    """Each step, whatever became of those before it; then the first of what went wrong, if any."""
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


@dataclass(frozen=True, slots=True)
class _Taken:
    """An entry that is out of the store: its intent's number, and where it lies."""

    base_name: str
    op: int
    private: Private


@dataclass(frozen=True, slots=True)
class _Batch:
    """The entries that are asked for at once, and what has become of them so far."""

    store: Store
    store_fd: int
    log: AuditLog
    requester: Requester
    checkpoint: Checkpoint
    privates: ExitStack
    """Keeps the private directories until the end."""
    taken: list[_Taken] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    """What an earlier run has left and may go."""

    def take_all(self, requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        yield from self.take_each(survey(self.store, self.store_fd, requests), requests)

    def take_each(self, seen: Survey, requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        for request in sorted(requests, key=lambda request: request.turn):
            try:
                result = self.take(seen, request)
            except OSError as cause:
                # It was not moved; or else its intent is open, and the next run sorts it out.
                result = _failed(request.base_name, cause)
            if isinstance(result, _Taken):
                self.taken.append(result)
                result = Outcome(result.base_name, Status.TAKEN)
            yield result

    def purge_all(self, seconds: float = PURGE_SECONDS) -> Iterator[Outcome]:
        if self.taken or self.left:
            # What a power cut brings back under its own name is whole, whatever the disk reorders.
            os.fsync(self.store_fd)
        ends = deadlines(len(self.taken) + len(self.left), seconds)
        for item in self.taken:
            self.checkpoint("purging")
            purged = purge(item.private, Purged(until=next(ends)))
            self.checkpoint("purged")
            yield self.conclude(item.op, purged_outcome(item.base_name, purged))
        for leftover in self.left:
            yield finish(self.log, leftover, next(ends))

    def take(self, seen: Survey, request: RemoveRequest) -> _Taken | Outcome:
        """Prove the entry dead under locks and move it out of the store, or say why not."""
        name = request.base_name
        entry = look(self.store_fd, name)
        if entry is None:
            return Outcome(name, Status.VANISHED)
        if entry.file_id != request.file_id:
            return Outcome(name, Status.KEPT, ("it is no longer the entry that was looked at",))
        hidden = entry.uid == self.store.hidden_uid
        origin = None if hidden else seen.origins.get(StorePath(name))
        owner, users = os.fstat(self.store_fd).st_uid, self.store.build_users
        kind = classify(entry, origin, store_uid=owner, build_users=users)
        if kind is not request.kind:
            return Outcome(name, Status.KEPT, (f"it is of kind {kind}, not {request.kind}",))
        with ExitStack() as locks:
            witness = Witness(locks, self.store, self.store_fd, seen, entry, kind)
            facts = witness.hold_and_look()
            judgement = judge(kind, origin, facts)
            if judgement.verdict is not Verdict.REMOVABLE:
                against = [(c, f) for c, f in facts.items() if f.known is not Known.NO]
                unproved = bool(against) and all(f.known is Known.UNKNOWN for _, f in against)
                reasons = tuple(explain(claim, fact) for claim, fact in against)
                return Outcome(name, Status.KEPT, reasons or judgement.reasons, unproved=unproved)
            self.checkpoint("proved")
            if kind is EntryKind.LOCK:
                return self.remove_lock(witness, facts)
            return self.take_tree(witness, facts)

    def remove_lock(self, witness: Witness, facts: Facts) -> Outcome:
        op = self.intend(witness, facts, "")
        name = witness.entry.base_name
        try:
            (lock,) = witness.held
            remove_lock_file(self.store_fd, lock)
        except OSError as cause:
            return self.conclude(op, _failed(name, cause))
        self.checkpoint("taken")
        return self.conclude(op, Outcome(name, Status.REMOVED, files=1))

    def take_tree(self, witness: Witness, facts: Facts) -> _Taken | Outcome:
        name = witness.entry.base_name
        try:
            private = self.privates.enter_context(new_private(self.store_fd))
        except OSError as cause:
            return _failed(name, cause)
        op = self.intend(witness, facts, private.name)
        if why := self.last_look(witness):
            return self.conclude(op, Outcome(name, Status.KEPT, (why,)))
        try:
            remove_from_store(self.store_fd, name, private)
        except OSError as cause:
            gone = look(self.store_fd, name) is None
            failed = Outcome(name, Status.VANISHED) if gone else _failed(name, cause)
            return self.conclude(op, failed)
        self.checkpoint("taken")
        if why := self.second_thoughts(witness, look(private.fd, name)):
            return self.put_back(op, name, private, why)
        return _Taken(name, op, private)

    def last_look(self, witness: Witness) -> str:
        """Why it is not moved after all; empty where it is."""
        # The intent took a disk's time to write. What has come in its place meanwhile stays.
        now = look(self.store_fd, witness.entry.base_name)
        if now is not None and now != witness.entry:
            return "it changed at the last moment"
        self.checkpoint("unchanged")
        # A worker that has ended holds nothing for us, nor do we a lock that has lost its name.
        return "" if witness.still_held() else _LET_GO

    def second_thoughts(self, witness: Witness, moved: Entry | None) -> str:
        """Why what was moved is put back; empty where it is not."""
        # What another has put there is out of its place until this is done: ask nothing before.
        if moved is None or not moved.same_object(witness.entry):
            return "it was replaced at the last moment"
        if not witness.still_held():
            return _LET_GO
        if in_database(self.store, witness.path).known is not Known.NO:
            return "it was registered at the last moment"
        return ""

    def put_back(self, op: int, name: str, private: Private, why: str) -> Outcome:
        try:
            put_back(self.store_fd, name, private)
        except FileNotFoundError:
            return self.conclude(op, Outcome(name, Status.VANISHED))
        except OSError as cause:
            reason = f"{why}, and it {CANNOT_BE_PUT_BACK} from {private.name}: {reason_of(cause)}"
            # The intent of what lies there stays open: it tells that from what was proved dead.
            return Outcome(name, Status.FAILED, (reason,))
        return self.conclude(op, Outcome(name, Status.KEPT, (f"{why}, so it was put back",)))

    def intend(self, witness: Witness, facts: Facts, private: str) -> int:
        entry, origin = witness.entry, witness.origin
        op = self.log.append(
            Intent(
                name=entry.base_name,
                kind=witness.kind.value,
                **entry.file_id._asdict(),
                mode=entry.mode,
                uid=entry.uid,
                gid=entry.gid,
                ctime=int(entry.ctime),
                deriver=origin.deriver.derivation.base_name if origin else "",
                output=origin.deriver.output if origin else "",
                locks=tuple(sorted([*witness.lent, *(lock.base_name for lock in witness.held)])),
                absent=tuple(claim.value for claim in facts),
                private=private,
                program=f"storewarden {__version__}",
                requester=replace(self.requester, pid=self.requester.pid or 0),
            )
        )
        self.checkpoint("intended")
        return op

    def conclude(self, op: int, outcome: Outcome) -> Outcome:
        try:
            self.log.append(result_of(outcome, op))
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
