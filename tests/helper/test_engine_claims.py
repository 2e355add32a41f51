# SPDX-License-Identifier: MIT
"""Each claim alone keeps an entry that would go without it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from helper.bench import alone, held_by_another, names, picture, records, run
from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden import host
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import Store
from storewarden.store.wire import Outcome
from storewarden.throwaway import ThrowawayStore
from sweeps import user_lock


@pytest.fixture
def scratch(place: ThrowawayStore) -> StorePath:
    """A stranded output with its derivation and its lock."""
    return place.strand(place.add_derivation("x"))


def kept(place: ThrowawayStore, path: StorePath, store: Store | None = None) -> Outcome:
    """What the engine says of the entry, which must stay with all that is around it."""
    before = picture(place.store_dir.path)
    (outcome,) = run(place, path.base_name, store=store)
    assert picture(place.store_dir.path) == before
    assert not records(place)
    assert outcome.status == "kept"
    assert len(outcome.reasons) == 1
    return outcome


def claimed(place: ThrowawayStore, path: StorePath, store: Store | None = None) -> str:
    """Why the entry stays, where it is known that something claims it."""
    outcome = kept(place, path, store)
    assert not outcome.unproved
    return outcome.reasons[0]


def test_what_nothing_claims_goes(place: ThrowawayStore, scratch: StorePath) -> None:
    with open(f"{place.state_dir}/temproots/1", "w", encoding="ascii") as dead:
        dead.write(place.path(scratch.base_name) + "\0")
    place.add_lock(path_lock(scratch))
    outcomes = run(place, scratch.base_name)
    assert [outcome.status for outcome in outcomes] == ["taken", "removed"]
    assert scratch.base_name not in names(place)


def test_its_own_lock_held_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with held_by_another(place.path(path_lock(scratch))):
        assert f"{path_lock(scratch)} is held" in claimed(place, scratch)


def test_the_lock_of_its_derivations_output_held_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation, "dev")
    lock = output_lock(derivation, "dev")
    with held_by_another(place.path(lock)):
        assert f"{lock} is held" in claimed(place, path)


def test_the_held_lock_of_a_derivation_that_is_gone_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    with held_by_another(place.path(output_lock(derivation, "out"))):
        assert "is held" in claimed(place, path)


@needs_root
@pytest.mark.parametrize("which", ["its own", "its derivation's"])
def test_a_lock_file_that_its_owner_could_exchange_keeps_it(
    which: str, place: ThrowawayStore
) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    lock = path_lock(path) if which == "its own" else output_lock(derivation, "out")
    if which == "its own":
        place.add_lock(lock)
    os.chown(place.path(lock), place.builder, -1)
    outcome = kept(place, path, alone(place))
    assert (
        f"({lock} is not an empty lock file of Nix's, but: uid {place.builder}, 0 bytes"
        in outcome.reasons[0]
    )
    assert outcome.unproved


def test_a_lock_file_that_is_not_empty_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    place.add_lock(path_lock(scratch))
    os.truncate(place.path(path_lock(scratch)), 1)
    outcome = kept(place, scratch)
    assert f"{path_lock(scratch)} is not an empty lock file of Nix's" in outcome.reasons[0]
    assert "1 bytes, 1 links" in outcome.reasons[0]
    assert outcome.unproved


def test_the_lock_of_another_output_does_not_keep_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    place.strand(derivation, "dev")
    with held_by_another(place.path(output_lock(derivation, "dev"))):
        assert run(place, path.base_name, store=alone(place))[-1].status == "removed"


def test_its_build_users_lock_held_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    name = user_lock(place)
    with held_by_another(f"{place.state_dir}/{name}"):
        assert f"({name} is held)" in claimed(place, scratch)


def test_a_collector_at_work_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with held_by_another(f"{place.state_dir}/gc.lock"):
        assert "garbage collector" in claimed(place, scratch)


@contextmanager
def live_temp_root(place: ThrowawayStore, path: StorePath) -> Iterator[None]:
    roots = f"{place.state_dir}/temproots/77"
    with open(roots, "w", encoding="ascii") as file:
        file.write(place.path(path.base_name) + "\0")
    with held_by_another(roots):
        yield


def test_a_live_temp_root_on_it_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with live_temp_root(place, scratch):
        assert "(process 77)" in claimed(place, scratch, alone(place))


def test_a_live_temp_root_on_its_derivation_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    with live_temp_root(place, derivation):
        assert "(process 77)" in claimed(place, path, alone(place))


def test_a_live_temp_root_alone_leads_to_its_derivation(place: ThrowawayStore) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    os.unlink(place.path(output_lock(derivation, "out")))
    with live_temp_root(place, derivation):
        assert "(process 77)" in claimed(place, path, alone(place))


def test_a_process_of_its_owner_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    user = place.builder if os.geteuid() == 0 else None
    store = replace(place.as_store(), processes_of=host.processes_of)
    with subprocess.Popen(["sleep", "60"], user=user) as process:
        assert "a process of its owner is alive" in claimed(place, scratch, store)
        process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes of other users")
def test_a_process_of_the_same_slot_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    store = replace(place.as_store(), processes_of=host.processes_of)
    with subprocess.Popen(["sleep", "60"], user=place.builder + host.PER_SLOT - 1) as process:
        assert f"(process {process.pid})" in claimed(place, scratch, store)
        process.kill()
    with subprocess.Popen(["sleep", "60"], user=place.builder + host.PER_SLOT) as process:
        assert run(place, scratch.base_name, store=store)[-1].status == "removed"
        process.kill()


def test_what_changed_a_moment_ago_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    assert "changed too recently" in claimed(place, scratch, place.as_store(min_age=3600))


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_what_others_may_write_to_stays_without_a_deriver(mode: int, place: ThrowawayStore) -> None:
    path = place.invent("x")
    place.add_output(path)
    os.chmod(place.path(path.base_name), mode)
    assert "others than its owner may write" in claimed(place, path)
    os.chmod(place.path(path.base_name), 0o700)
    assert run(place, path.base_name)[-1].status == "removed"


def test_what_others_may_write_to_goes_when_its_deriver_is_locked(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    os.chmod(place.path(scratch.base_name), 0o777)  # noqa: S103 - the point of the test
    assert run(place, scratch.base_name)[-1].status == "removed"


@needs_root
@pytest.mark.parametrize("below", ["", "/bin", "/log"])
def test_a_mount_on_it_or_in_it_keeps_it(
    below: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    target = place.path(scratch.base_name) + below
    inside = f"{place.state_dir}/{'db/schema' if below == '/log' else 'db'}"

    def in_own_mounts() -> list[str]:
        take_own_mounts()
        mount("--bind", inside if below else target, target)
        return list(run(place, scratch.base_name)[0].reasons)

    assert in_child(in_own_mounts) == ["something is mounted on it or in it"]
    assert scratch.base_name in names(place)
    assert not records(place)
