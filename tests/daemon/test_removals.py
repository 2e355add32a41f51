# SPDX-License-Identifier: MIT
"""What the service says of what was moved and cannot be put back: as loudly as it can."""

import os
from collections.abc import Iterator, Sequence

import structlog
from structlog.testing import capture_logs

from daemon.test_metrics import samples
from helper.bench import held_by_another, log_of, names, run
from helper.child import needs_root
from helper.trees import left_private, write
from storewarden.config import Config
from storewarden.daemon.metrics import exposition
from storewarden.daemon.removals import have_removed
from storewarden.daemon.snapshot import snapshot, status_line
from storewarden.daemon.work import Work
from storewarden.helper.engine import Requester, remove
from storewarden.protocol import Outcome, RemoveRequest
from storewarden.report.status import status_lines
from storewarden.store.paths import StorePath, output_lock
from storewarden.throwaway import ThrowawayStore


def work_on(place: ThrowawayStore) -> Work:
    """The memory of a service that removes with an engine of its own."""
    store = place.as_store()

    def with_engine(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        requester = Requester(os.getuid(), os.getpid(), "test")
        return remove(store, requests, audit_log=log_of(place), requester=requester)

    log = structlog.get_logger()
    return Work(Config(), store, with_engine, log, lambda: None, lambda: False)


def exchange(place: ThrowawayStore, scratch: StorePath) -> None:
    """Have what nobody looked at taken instead of it, and another made in its place."""
    path = place.path(scratch.base_name)

    def meanwhile(step: str) -> None:
        if step == "unchanged":
            os.rename(path, f"{place.state_dir}/away")
            os.mkdir(path)
            write(f"{path}/half of what a live build wrote")
            os.chown(path, place.builder + 1, place.builder)
        elif step == "taken":
            os.mkdir(path)

    (outcome,) = run(place, scratch.base_name, checkpoint=meanwhile)
    assert outcome.status == "failed"


def told_as_problem(work: Work) -> float:
    """What the metric says."""
    return samples(exposition(snapshot(work, 0.0, "inotify")))["storewarden_problem", "put-back"]


@needs_root
def test_what_cannot_be_put_back_is_told_until_it_is_settled(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    scratch = place.strand(derivation)
    exchange(place, scratch)
    work = work_on(place)
    (private,) = left_private(place)
    with held_by_another(place.path(output_lock(derivation, "out"))), capture_logs() as logged:
        for _ in range(3):
            have_removed(work, ())
        text = work.problems["put-back"]
        assert scratch.base_name in text
        assert private in text
        # Once, and not at each try; and it is tried again soon.
        assert [one["log_level"] for one in logged if one.get("where") == "put-back"] == ["error"]
        assert 0 < work.helper.waited <= 30
        assert told_as_problem(work) == 1
        status = snapshot(work, 0.0, "inotify")
        assert "put-back" in status_line(status)
        lines = "\n".join(status_lines(status, status.updated, running=True))
        assert "PROBLEM (put-back)" in lines
        assert "storewarden audit show" in lines
        assert not work.suspects
    have_removed(work, ())
    assert "put-back" not in work.problems
    assert told_as_problem(work) == 0
    assert work.helper.due == float("inf")
    assert not left_private(place)
    assert scratch.base_name in names(place)
