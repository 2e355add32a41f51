# SPDX-License-Identifier: MIT
"""Each claim alone keeps an entry that would go without it."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from helper.bench import kept, live_temp_root, names, records, run
from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden import host
from storewarden.protocol import Outcome
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import Store
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding, needs_lock_table, user_lock


def kept_for_one(place: ThrowawayStore, path: StorePath, store: Store | None = None) -> Outcome:
    """What the engine says of an entry that stays, and for one reason alone."""
    outcome = kept(place, path.base_name, store)
    assert len(outcome.reasons) == 1
    return outcome


def claimed(place: ThrowawayStore, path: StorePath, store: Store | None = None) -> str:
    """Why the entry stays, where it is known that something claims it."""
    outcome = kept_for_one(place, path, store)
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
    with holding(place.path(path_lock(scratch))):
        assert f"{path_lock(scratch)} is held" in claimed(place, scratch)


def test_the_lock_of_its_derivations_output_held_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation, "dev")
    lock = output_lock(derivation, "dev")
    with holding(place.path(lock)):
        assert f"{lock} is held" in claimed(place, path)


def test_the_held_lock_of_a_derivation_that_is_gone_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    with holding(place.path(output_lock(derivation, "out"))):
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
    outcome = kept_for_one(place, path, alone(place))
    assert (
        f"({lock} is not an empty lock file of Nix's, but: uid {place.builder}, 0 bytes"
        in outcome.reasons[0]
    )
    assert outcome.unproved


def test_a_lock_file_that_is_not_empty_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    place.add_lock(path_lock(scratch))
    os.truncate(place.path(path_lock(scratch)), 1)
    outcome = kept_for_one(place, scratch)
    assert f"{path_lock(scratch)} is not an empty lock file of Nix's" in outcome.reasons[0]
    assert "1 bytes, 1 links" in outcome.reasons[0]
    assert outcome.unproved


def test_the_lock_of_another_output_does_not_keep_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    place.strand(derivation, "dev")
    with holding(place.path(output_lock(derivation, "dev"))):
        assert run(place, path.base_name, store=alone(place))[-1].status == "removed"


@pytest.fixture
def unknown(place: ThrowawayStore) -> StorePath:
    """A stranded output of no derivation that is known."""
    path = place.invent("unknown")
    place.add_output(path)
    return path


@needs_lock_table
def test_its_build_users_lock_held_keeps_what_no_known_lock_covers(
    place: ThrowawayStore, scratch: StorePath, unknown: StorePath
) -> None:
    name = user_lock(place)
    with holding(f"{place.state_dir}/{name}"):
        assert f"({name} is held)" in claimed(place, unknown)
        assert run(place, scratch.base_name)[-1].status == "removed"


def test_a_collector_at_work_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with holding(f"{place.state_dir}/gc.lock"):
        assert "garbage collector" in claimed(place, scratch)


def test_a_live_temp_root_on_it_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with live_temp_root(place, scratch):
        assert "(process 77)" in claimed(place, scratch, alone(place))


def test_a_live_temp_root_on_its_derivation_keeps_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("x")
    path = place.strand(derivation)
    with live_temp_root(place, derivation):
        assert "(process 77)" in claimed(place, path, alone(place))


def test_a_worker_that_ends_while_processes_are_looked_at_was_seen_by_its_temp_root(
    place: ThrowawayStore, derivation: StorePath, scratch: StorePath
) -> None:
    # Its lock file may be one that was unlinked, by somebody who was killed before he marked it.
    worker = ExitStack()

    def processes(_uids: Collection[int]) -> list[int]:
        worker.close()  # and its builder is an orphan from now on only
        return []

    with worker:
        worker.enter_context(live_temp_root(place, derivation))
        store = replace(place.as_store(), processes_of=processes)
        assert "temp root" in claimed(place, scratch, store)


def test_a_live_temp_root_alone_leads_to_its_derivation(place: ThrowawayStore) -> None:
    derivation = place.invent("x.drv")
    path = place.strand(derivation)
    os.unlink(place.path(output_lock(derivation, "out")))
    with live_temp_root(place, derivation):
        assert "(process 77)" in claimed(place, path, alone(place))


def test_an_orphan_of_its_owner_keeps_it(
    place: ThrowawayStore, scratch: StorePath, unknown: StorePath
) -> None:
    user = place.builder if os.geteuid() == 0 else None
    store = replace(place.as_store(), processes_of=host.processes_of)
    with subprocess.Popen(["sleep", "60"], user=user) as process:
        assert "a process of its owner is alive" in claimed(place, unknown, store)
        assert "not seen to belong to another build" in claimed(place, scratch, store)
        process.kill()


@needs_root
def test_an_orphan_of_a_user_who_is_no_build_user_any_more_keeps_it(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    former = 12345
    os.chown(place.path(scratch.base_name), former, former)
    store = replace(place.as_store(), processes_of=host.processes_of)
    with subprocess.Popen(["sleep", "60"], user=former) as process:
        assert f"(process {process.pid})" in claimed(place, scratch, store)
        process.kill()


@contextmanager
def building(place: ThrowawayStore) -> Iterator[int]:
    """A worker that holds the lock of that store's build user, and a builder of its; its pid."""
    lock = f"{place.state_dir}/{user_lock(place)}"
    words = [sys.executable, "-I", "-S", "-c", _WORKER, lock, str(place.builder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate()


_WORKER = """
import fcntl, os, subprocess, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], user=int(sys.argv[2])) as builder:
    print(builder.pid, flush=True)
    sys.stdin.read()
    subprocess.run(["pkill", "-P", str(builder.pid)])
"""


@needs_root
@needs_lock_table
def test_another_build_of_its_user_is_no_claim_on_what_known_locks_cover(
    place: ThrowawayStore, scratch: StorePath, unknown: StorePath
) -> None:
    store = replace(place.as_store(), processes_of=host.processes_of)
    with building(place):
        assert f"({user_lock(place)} is held)" in claimed(place, unknown, store)
        assert run(place, scratch.base_name, store=store)[-1].status == "removed"


@needs_root
@needs_lock_table
def test_an_orphan_beside_another_build_of_its_user_keeps_it(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    store = replace(place.as_store(), processes_of=host.processes_of)
    with building(place), subprocess.Popen(["sleep", "60"], user=place.builder) as orphan:
        assert f"(process {orphan.pid})" in claimed(place, scratch, store)
        orphan.kill()


@needs_root
@needs_lock_table
def test_what_has_lost_its_parent_counts_as_an_orphan(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    store = replace(place.as_store(), processes_of=host.processes_of)
    forked_twice = ["setpriv", f"--reuid={place.builder}", "--clear-groups", "sh", "-c"]
    with building(place):
        said = subprocess.run(
            [*forked_twice, "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True
        )
        pid = int(said.stdout)
        try:
            assert f"(process {pid})" in claimed(place, scratch, store)
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes of other users")
def test_a_process_of_the_same_slot_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    store = replace(place.as_store(), processes_of=host.processes_of)
    with subprocess.Popen(["sleep", "60"], user=place.builder + host.PER_SLOT - 1) as process:
        assert f"(process {process.pid})" in claimed(place, scratch, store)
        process.kill()
    with subprocess.Popen(["sleep", "60"], user=place.builder + host.PER_SLOT) as process:
        assert run(place, scratch.base_name, store=store)[-1].status == "removed"
        process.kill()


def test_what_changed_a_moment_ago_stays_if_no_known_lock_covers_it(
    place: ThrowawayStore, scratch: StorePath, unknown: StorePath
) -> None:
    store = place.as_store(min_age=3600)
    assert "changed too recently" in claimed(place, unknown, store)
    assert run(place, scratch.base_name, store=store)[-1].status == "removed"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_what_others_may_write_to_stays_while_another_build_user_is_at_work(
    mode: int, place: ThrowawayStore, unknown: StorePath
) -> None:
    os.chmod(place.path(unknown.base_name), mode)
    store = place.as_store()
    other = next(iter(store.build_users.everyone[1]))

    def processes(uids: Collection[int]) -> list[int] | None:
        return [4711] if other in uids else []

    busy = replace(store, processes_of=processes)
    assert "others than its owner may write" in claimed(place, unknown, busy)
    unseen = replace(store, processes_of=lambda uids: None if other in uids else [])
    assert kept_for_one(place, unknown, unseen).unproved
    assert run(place, unknown.base_name)[-1].status == "removed"


def test_what_only_its_owner_may_write_to_goes_whoever_else_builds(
    place: ThrowawayStore, unknown: StorePath
) -> None:
    store = place.as_store()
    other = next(iter(store.build_users.everyone[1]))
    busy = replace(store, processes_of=lambda uids: [4711] if other in uids else [])
    assert run(place, unknown.base_name, store=busy)[-1].status == "removed"


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


@needs_root
@pytest.mark.parametrize("seen_in", ["its view", "the store directory"])
def test_a_mount_that_is_seen_in_one_of_two_views_of_the_store_keeps_it(
    seen_in: str, place: ThrowawayStore, scratch: StorePath
) -> None:
    view = f"{place.state_dir}/view"
    os.mkdir(view)

    def in_own_mounts() -> list[str]:
        take_own_mounts()
        mount("--bind", place.store_dir.path, view)
        top = view if seen_in == "its view" else place.store_dir.path
        mount("-t", "tmpfs", "none", f"{top}/{scratch.base_name}/bin")
        store = replace(place.as_store(), view=view)
        return list(run(place, scratch.base_name, store=store)[0].reasons)

    assert in_child(in_own_mounts) == ["something is mounted on it or in it"]
    assert scratch.base_name in names(place)
    assert not records(place)
