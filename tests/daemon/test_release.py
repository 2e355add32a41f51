# SPDX-License-Identifier: MIT
"""A lock that is let go has what it covered looked at at once."""

import time
from collections.abc import Iterator, Sequence

import structlog

from storewarden.config import Config
from storewarden.daemon.rounds import sweep_all
from storewarden.daemon.suspects import Suspect, due
from storewarden.daemon.work import Work, release
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.store.paths import output_lock, path_lock, redirect_path
from storewarden.throwaway import ThrowawayStore
from sweeps import needs_lock_table
from tables import know_output


def work_of(place: ThrowawayStore) -> Work:
    log = structlog.get_logger()
    return Work(Config(), place.as_store(), lambda _: iter(()), log, lambda: None, lambda: False)


def due_after(work: Work, lock: str) -> set[str]:
    release(work, [lock])
    return set(due(work.suspects, time.monotonic() + 0.2))


def test_its_scratch_path_is_told_by_the_name_of_the_lock(place: ThrowawayStore) -> None:
    derivation, work = place.add_derivation("x"), work_of(place)
    path, lock = place.strand(derivation), output_lock(derivation, "out")
    later = time.monotonic() + 1000
    for name in (path.base_name, lock, "other"):
        work.suspects[name] = Suspect(name, later)
    assert due_after(work, lock) == {path.base_name, lock}
    assert due_after(work, "no lock") == {path.base_name, lock}


@needs_lock_table
def test_what_else_it_covers_was_told_by_the_look_before(place: ThrowawayStore) -> None:
    derivation, valid = place.add_derivation("x"), place.add_valid("x")
    know_output(place, derivation, "out", valid)
    path, lock = redirect_path(derivation, valid, place.store_dir), path_lock(valid)
    place.add_output(path)
    place.add_lock(lock)
    place.hold(place.path(lock))
    work = work_of(place)
    sweep_all(work)
    assert path.base_name in work.suspects, "it is alive, and looked at again"
    assert due(work.suspects, time.monotonic() + 0.2) == []
    assert path.base_name in due_after(work, lock)


def test_what_was_taken_to_remove_something_wakes_nobody(place: ThrowawayStore) -> None:
    derivation, work = place.add_derivation("x"), work_of(place)
    path, lock = place.strand(derivation), output_lock(derivation, "out")
    asked: list[str] = []

    def refuse(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        asked.extend(request.base_name for request in requests)
        yield from (Outcome(one.base_name, Status.KEPT, ("it lives",)) for one in requests)

    work.remove = refuse
    sweep_all(work)
    assert path.base_name in asked
    assert due_after(work, lock) == set(), "the helper has closed it: it is what was just refused"
    work.touched.clear()
    assert path.base_name in due_after(work, lock)


def test_nothing_becomes_a_suspect_by_that(place: ThrowawayStore) -> None:
    work = work_of(place)
    assert due_after(work, path_lock(place.add_valid("x"))) == set()
    assert work.suspects == {}
