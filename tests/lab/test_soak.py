# SPDX-License-Identifier: MIT
"""Builds started and interrupted at random, for a while: beside sweeps, and beside the service.

`STOREWARDEN_LAB_SOAK` is how many seconds each lasts.
"""

import json
import os
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from lab import service as installed
from lab.leaving import Seen, unexplained, watching_what_leaves
from lab.machine import Machine
from lab.soak import SWEPT, Tally, debris, lost_paths, meanwhile, moved_by_nix, soak, troubled
from real import namespace as ns
from real.rig import Rig, valid_paths
from real.warden import AT_ONCE, Report, audit_log, records, scan, warden
from storewarden import audit_reading

SECONDS = float(os.environ.get("STOREWARDEN_LAB_SOAK", "30"))
SEED = int(os.environ.get("STOREWARDEN_SEED", "20261122"))
EVERY = 0.2
TROUBLE = min(10.0, max(2.0, SECONDS / 30))
"""Seconds from what is done beside the builds to the next."""
Property = Callable[[str, object], None]


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_no_build_fails_that_would_not_fail_without_storewarden(
    machine: Machine, record_property: Property
) -> None:
    rig, tally, sweeps = machine.rig, Tally(), list[int]()
    with watching_what_leaves(rig.store) as seen:
        with sweeping(rig, sweeps):
            soak(rig, dice(), tally, SECONDS)
        assert_all_debris_goes(rig, tally)
    counted = tally.line(machine.suite, "sweeps", SECONDS, audit_log(rig))
    record_property("tally", json.dumps(counted))
    assert_nobody_was_hurt(rig, tally)
    assert_explained(rig, seen, tally, audit_log(rig))
    assert set(sweeps) <= SWEPT, sweeps
    assert len(sweeps) >= 3, sweeps
    assert_every_intent_has_its_result(records(rig))


@pytest.mark.timeout(SECONDS * 2 + 300)
def test_beside_the_service_collections_and_restarts_no_live_build_is_hurt(
    service: Machine, record_property: Property
) -> None:
    rig, tally, log = service.rig, Tally(), installed.audit_log(service.rig)
    beside = random.Random(SEED + 1)  # noqa: S311 - no secret
    with watching_what_leaves(rig.store) as seen:
        with troubled(rig, beside, tally, TROUBLE):
            soak(rig, dice(), tally, SECONDS)
        counted = tally.line(service.suite, "service", SECONDS, log)
        record_property("tally", json.dumps(counted))
        wait_for_orphans(rig)
        ns.wait_until(lambda: not debris(rig, tally), installed.journal(rig), 60)
    assert_nobody_was_hurt(rig, tally)
    assert_explained(rig, seen, tally, log)
    assert not tally.failed, "\n".join(tally.failed)
    assert len(tally.acts) > 3, tally.acts
    assert not audit_reading.verify(log).problem
    assert_every_intent_has_its_result(list(map(dict, audit_reading.read_records(log))))


def dice() -> random.Random:
    return random.Random(SEED)  # noqa: S311 - the same builds every time


def sweeping(rig: Rig, sweeps: list[int]) -> AbstractContextManager[None]:
    """While a sweep that removes what it can is begun every so often; the exit status of each."""

    def sweep(stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            sweeps.append(warden(rig, "scan", "--yes", *AT_ONCE).returncode)

    return meanwhile(sweep)


def assert_nobody_was_hurt(rig: Rig, tally: Tally) -> None:
    assert not tally.hurt(), "\n\n".join(tally.hurt())
    assert not tally.lost
    assert not lost_paths(rig)
    verified = ns.run(rig.namespace, ["nix-store", "--verify", "--check-contents"])
    assert verified.returncode == 0, verified.stderr
    assert tally.good > SECONDS / 6, tally
    assert tally.interrupted > SECONDS / 6, tally


def assert_explained(rig: Rig, seen: Seen, tally: Tally, log: str) -> None:
    """Whatever has left the store is on record, or was Nix's to remove."""
    ended = tally.registered | valid_paths(rig) | moved_by_nix(rig, tally)
    registered = {os.path.basename(path) for path in ended}
    deleted = [os.path.basename(path) for one in tally.collections for path in one.deleted]
    known = [*audit_reading.read_records(log)]
    wrong = unexplained(seen, known, deleted, registered)
    trail = [one for one in seen.trail if any(one[1][:32] in line for line in wrong)]
    assert wrong == [], "\n".join(f"{what} {name}" for what, name in trail)


def wait_for_orphans(rig: Rig) -> None:
    """Until all builders have ended, even those that outlived their workers."""
    users = set(rig.build_users)
    ns.wait_until(lambda: not users & {p.uid for p in ns.processes(rig.namespace)}, "orphans")


def assert_all_debris_goes(rig: Rig, tally: Tally) -> None:
    wait_for_orphans(rig)
    scan(rig, "--yes")
    assert not debris(rig, tally)


def assert_every_intent_has_its_result(log: list[Report]) -> None:
    intents = [one["seq"] for one in log if one["action"] == "intent"]
    results = [one["op"] for one in log if one["action"] == "result"]
    assert sorted(intents) == sorted(results) != [], "nothing was removed, or not to its end"
