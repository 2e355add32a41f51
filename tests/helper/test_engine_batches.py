# SPDX-License-Identifier: MIT
"""Several entries at once, several callers at once, and callers that go away."""

import os
import subprocess

from helper.bench import at, audit_is_whole, log_of, names, records, request, run, run_requests
from helper.trees import descriptors, left_private
from storewarden.audit import Requester
from storewarden.helper.engine import remove
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding


def test_all_are_taken_before_any_is_purged(place: ThrowawayStore) -> None:
    paths = [place.strand(place.add_derivation(name)).base_name for name in "abc"]
    steps: list[str] = []
    outcomes = run(place, *paths, checkpoint=steps.append)
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        *((path, "taken") for path in paths),
        *((path, "removed") for path in paths),
    ]
    assert steps == ["proved", "intended", "unchanged", "taken"] * 3 + ["purging", "purged"] * 3
    assert not left_private(place)


def test_a_batch_may_end_in_many_ways(place: ThrowawayStore) -> None:
    dead, held, valid, gone = (
        place.strand(place.add_derivation(name)).base_name for name in ("a", "b", "c", "d")
    )
    lock = f"{place.invent('e').base_name}.lock"
    place.add_lock(lock)
    place.register(StorePath(valid))
    requests = [request(place, name) for name in (held, gone, dead, valid, lock)]
    subprocess.run(["rm", "-r", place.path(gone)], check=True)
    with holding(place.path(f"{held}.lock")):
        outcomes = run_requests(place, requests, store=alone(place))
    assert [(outcome.base_name, outcome.status) for outcome in outcomes] == [
        (held, "kept"),
        (gone, "vanished"),
        (dead, "taken"),
        (valid, "kept"),
        (lock, "removed"),
        (dead, "removed"),
    ]
    assert names(place) & {dead, held, valid, gone, lock} == {held, valid}
    assert audit_is_whole(place)


def test_no_descriptor_and_no_lock_outlives_a_run(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    held = place.strand(place.add_derivation("held")).base_name
    before = descriptors()
    with holding(place.path(f"{held}.lock")):
        outcomes = run(place, scratch.base_name, held, store=alone(place))
        assert [outcome.status for outcome in outcomes] == ["taken", "kept", "removed"]
        assert len(descriptors() - before) <= 2, "those of the other process alone"
    assert descriptors() == before
    assert run(place, held)[-1].status == "removed"


def test_a_caller_that_stops_listening_leaves_nothing_half_done(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    requester = Requester(0, None, "test")
    outcomes = remove(
        place.as_store(),
        [request(place, scratch.base_name)],
        audit_log=log_of(place),
        requester=requester,
    )
    assert next(iter(outcomes)).status == "taken"
    outcomes.close()  # type: ignore[attr-defined]
    assert left_private(place)
    assert [outcome.status for outcome in run(place)] == ["removed"]
    assert not left_private(place)
    assert audit_is_whole(place)


def test_of_two_at_once_one_removes_it(place: ThrowawayStore, scratch: StorePath) -> None:
    asked = request(place, scratch.base_name)
    waiting, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(waiting, 1)
        late = [
            outcome.status.value for outcome in run_requests(place, [asked], store=alone(place))
        ]
        os._exit(0 if late == ["vanished"] else 1)
    os.close(waiting)
    start = at("proved", lambda: os.write(go, b"!"))
    early = run_requests(place, [asked], store=alone(place), checkpoint=start)
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    assert [outcome.status for outcome in early] == ["taken", "removed"]
    assert len(records(place, "intent")) == 1
