# SPDX-License-Identifier: MIT
"""Having entries removed for the service, and what it remembers of each outcome."""

import time
from dataclasses import replace

from storewarden.config import Mode
from storewarden.daemon.suspects import Suspect, refused
from storewarden.daemon.work import Work, fail, problem
from storewarden.errors import StorewardenError
from storewarden.protocol import CANNOT_BE_PUT_BACK, Outcome, RemoveRequest, Status
from storewarden.repair import repair
from storewarden.store.entries import EntryKind
from storewarden.store.paths import LOCK_SUFFIX


def finish_begun(work: Work) -> None:
    """Have what an earlier run left behind removed, and learn whether that can be done at all."""
    if work.config.mode is Mode.REPAIR:
        have_removed(work, ())
    else:
        problem(work, "helper", "")
        work.helper = Suspect("", float("inf"))


def have_removed(work: Work, requests: tuple[RemoveRequest, ...]) -> None:
    """Have these removed, and remember what became of each; with none, finish what was begun."""
    if work.ended():
        return
    waiting = {request.base_name for request in requests}
    partial, away = [], []
    try:
        outcomes = repair(requests, work.remove, work.ended) if requests else work.remove(())
        for outcome in outcomes:
            work.pulse()
            told = f"{outcome.base_name}: {'; '.join(outcome.reasons)}"
            if _is_away(outcome):
                work.failed += 1  # no suspect: nothing of it lies in the store to be looked at
                away.append(told)
            else:
                _conclude(work, outcome)
            if outcome.status is Status.PARTIAL:
                partial.append(told)
            if outcome.status is not Status.TAKEN:
                waiting.discard(outcome.base_name)
    except StorewardenError as cause:
        problem(work, "helper", str(cause))
        work.helper = refused(work.helper, time.monotonic())
        for name in waiting:
            fail(work, name, (str(cause),))
    else:
        problem(work, "helper", "")
        # What may be a live build's is tried to be put back again soon.
        again = refused(work.helper, time.monotonic())
        work.helper = again if away else Suspect("", float("inf"))
        # Every run looks after what earlier ones left, and so tells of all of it.
        problem(work, "leftovers", partial[0] if partial else "")
        problem(work, "put-back", away[0] if away else "")


def _is_away(outcome: Outcome) -> bool:
    """Whether it was moved and may be wanted, and yet does not lie in its place."""
    return outcome.status is Status.FAILED and any(
        CANNOT_BE_PUT_BACK in reason for reason in outcome.reasons
    )


def _conclude(work: Work, outcome: Outcome) -> None:
    name = outcome.base_name
    now = time.monotonic()
    suspect = work.suspects.get(name) or Suspect(name, now)
    told = {"path": work.store.store_dir.join(name)}
    if outcome.reasons:
        told["reasons"] = "; ".join(outcome.reasons)
    match outcome.status:
        case Status.TAKEN:
            work.log.info("taken out of the store", **told)
        case Status.REMOVED:
            kind = work.known.pop(name, EntryKind.OUTPUT)
            work.removed[kind] += 1
            work.removed_bytes += outcome.bytes
            work.suspects.pop(name, None)
            _wake_locks(work)
            work.log.info("removed", **told, kind=kind.value, files=outcome.files)
        case Status.VANISHED:
            work.known.pop(name, None)
            work.suspects.pop(name, None)
        case Status.KEPT if not outcome.unproved:
            work.refused += 1
            work.suspects[name] = refused(suspect, now)
            if not suspect.waited:
                work.log.info("kept", **told)
        case Status.KEPT:
            work.refused += 1
            fail(work, name, outcome.reasons)
        case Status.FAILED:
            work.failed += 1
            fail(work, name, outcome.reasons)
        case Status.PARTIAL:
            work.failed += 1
            work.known.pop(name, None)
            work.suspects.pop(name, None)


def _wake_locks(work: Work) -> None:
    """Look at lock files at once: what they cover may have been what has just gone."""
    now = time.monotonic()
    for name, suspect in work.suspects.items():
        if name.endswith(LOCK_SUFFIX) and suspect.waited:
            work.suspects[name] = replace(suspect, due=now)
