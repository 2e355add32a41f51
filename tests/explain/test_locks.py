# SPDX-License-Identifier: MIT
"""Lock files of a throwaway store, really held, and what is said of them."""

import os
import re
import sys
import time
from dataclasses import replace

import pytest

from storewarden.cli.locks import chosen, lock_lines
from storewarden.explain.locks import (
    LockFile,
    Role,
    all_locks,
    hidden_places,
    state_lock,
    store_lock,
)
from storewarden.observe import observe
from storewarden.processes import Running
from storewarden.store.paths import Deriver, output_lock, path_lock
from storewarden.store.store import Known
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, needs_lock_table


@needs_lock_table
def test_a_held_lock_is_told_with_its_holder_and_for_which_output(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello")
    path = place.strand(derivation)
    name = output_lock(derivation, "out")
    with holding(place.path(name)) as pid, observe(place.as_store()) as seen:
        lock = store_lock(seen, name)
    assert lock is not None
    assert (lock.held, lock.deriver) == (Known.YES, Deriver(derivation, "out"))
    [holder] = lock.holders
    assert holder.pid == pid
    assert (holder.command or "").startswith(sys.executable[:60]), "it may have been cut short"
    assert holder.began is not None
    assert 0 <= time.time() - holder.began < 60
    assert path.base_name in lock.covers


@needs_lock_table
def test_a_temp_root_of_another_process_tells_who_wants_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello")
    place.strand(derivation)
    name = output_lock(derivation, "out")
    temp_roots = f"{place.state_dir}/temproots/{os.getpid()}"
    with open(temp_roots, "w", encoding="ascii") as file:
        file.write(place.path(derivation.base_name) + "\0")
    with observe(place.as_store()) as seen:
        dead = store_lock(seen, name)
    place.hold(temp_roots)
    with holding(place.path(name)), observe(place.as_store()) as seen:
        wanted = store_lock(seen, name)
    assert dead is not None
    assert dead.rooted == (), "its file is not held, so its process is dead"
    assert wanted is not None
    assert [one.pid for one in wanted.rooted or ()] == [os.getpid()]


@needs_lock_table
def test_all_kinds_of_lock_files_are_found_and_no_output_that_is_called_so(
    place: ThrowawayStore,
) -> None:
    path = place.invent("fetched")
    place.add_lock(path_lock(path))
    cargo = place.add_valid("Cargo.lock")
    for name in ("gc.lock", "db/big-lock", "userpool/30001", "userpool2/slot-0", "temproots/77"):
        with open(f"{place.state_dir}/{name}", "w", encoding="ascii"):
            pass
    os.makedirs(f"{place.state_dir}/profiles")
    place.hold(f"{place.state_dir}/profiles/default.lock")
    os.makedirs(f"{place.state_dir}/current-load")
    place.hold(f"{place.state_dir}/current-load/ssh-ng:__far-0")
    with observe(place.as_store()) as seen:
        found = {lock.path: lock for lock in all_locks(seen)}
    assert place.path(cargo.base_name) not in found
    roles = {path.removeprefix(f"{place.state_dir}/"): lock.role for path, lock in found.items()}
    assert roles == {
        place.path(path_lock(path)): Role.STORE,
        "gc.lock": Role.COLLECTOR,
        "db/big-lock": Role.DATABASE,
        "userpool/30001": Role.BUILD_USER,
        "userpool2/slot-0": Role.BUILD_USER,
        "temproots/77": Role.TEMP_ROOTS,
        "profiles/default.lock": Role.PROFILE,
        "current-load/ssh-ng:__far-0": Role.REMOTE,
    }
    few = chosen(found.values(), everything=False)
    assert [lock.state for lock in few] == ["held", "held", "stale"]
    assert len(chosen(found.values(), everything=True)) == len(found)


def test_without_a_table_of_locks_nothing_is_said_to_be_free(place: ThrowawayStore) -> None:
    name = path_lock(place.invent("fetched"))
    place.add_lock(name)
    with open(f"{place.state_dir}/gc.lock", "w", encoding="ascii"):
        pass
    apart = replace(place.as_store(), apart=lambda: True)
    with observe(apart) as seen:
        locks = list(all_locks(seen))
    assert {lock.held for lock in locks} == {Known.UNKNOWN}
    assert {lock.state for lock in locks} == {"unknown"}
    assert "cannot be seen here" in "\n".join(lock_lines(locks, time.time()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root sees every file")
def test_a_lock_that_may_not_be_looked_at_is_unknown_and_its_place_is_named(
    place: ThrowawayStore,
) -> None:
    os.chmod(f"{place.state_dir}/userpool", 0)
    try:
        with observe(place.as_store()) as seen:
            lock = state_lock(seen, "userpool/30001")
        assert lock is not None
        assert lock.held is Known.UNKNOWN
        assert hidden_places(place.state_dir) == [f"{place.state_dir}/userpool"]
    finally:
        os.chmod(f"{place.state_dir}/userpool", 0o700)


def test_what_is_not_there_or_is_no_file_is_no_lock(place: ThrowawayStore) -> None:
    name = path_lock(place.invent("strange"))
    with observe(place.as_store()) as seen:
        assert store_lock(seen, name) is None
        assert state_lock(seen, "gc.lock") is None
        os.symlink("/etc/passwd", place.path(name))
        assert store_lock(seen, name) is None


def test_lines_fit_eighty_columns_and_are_safe_for_a_terminal() -> None:
    name = "0" * 32 + "-some-longer-name-1.2.3.drv.out.lock"
    worker = Running(7, "nix-daemon \x1b[2J" + "x" * 70, "root", 1000.0, 5, "nix-build " + "y" * 70)
    lock = LockFile(
        f"/nix/store/{name}",
        Role.STORE,
        1000.0,
        0,
        Known.YES,
        holders=(worker,),
        blocked=(Running(8),),
        rooted=(Running(9, "nix-daemon 3", "root", 1100.0),),
    )
    free = replace(lock, held=Known.NO, holders=(), size=1)
    lines = list(lock_lines([lock, free], 1120.0))
    assert all(len(line) <= 80 and line.isprintable() for line in lines), lines
    text = re.sub(r"\s+", " ", "\n".join(lines))
    assert "held for at most 2 min by process 7" in text
    assert "process 8, which has ended or cannot be seen" in text
    assert "process 9 (nix-daemon 3), root, has a temp root on it too and may wait" in text
    assert "POISONED" in text
    assert lines[-1] == "2 lock files: 1 held, 1 stale"


def test_no_lock_files_are_told_in_one_line() -> None:
    assert list(lock_lines([], 0)) == ["no lock files"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ssh-ng:__far-0", "place 0 on the remote builder ssh-ng:__far"),
        ("ssh-ng:__far.upload-lock", "sending files to ssh-ng:__far, for one build after another"),
        ("main-lock", "the choice of a remote builder, one build after another"),
    ],
)
def test_what_a_lock_for_a_remote_builder_is_for_is_told(name: str, said: str) -> None:
    lock = LockFile(f"/nix/var/nix/current-load/{name}", Role.REMOTE, 1000.0, 0, Known.YES)
    assert said in " ".join("\n".join(lock_lines([lock], 1120.0)).split())


def test_the_names_that_stand_beside_a_lock_are_told_to_be_of_the_same_output(
    place: ThrowawayStore,
) -> None:
    derivation = place.add_derivation("hello")
    name = output_lock(derivation, "out")
    beside = [f"{name}.owner", f"{name.removesuffix('.lock')}-remote.lock"]
    for one in beside:
        place.add_lock(one)
    with observe(place.as_store()) as seen:
        found = {lock.path.rpartition("/")[2]: lock for lock in all_locks(seen)}
    assert [found[one].deriver for one in beside] == [Deriver(derivation, "out")] * 2
    text = " ".join("\n".join(lock_lines(list(found.values()), time.time())).split())
    assert f"output out of {derivation.base_name}: says who holds its lock" in text
    assert f"output out of {derivation.base_name}, built by a remote builder" in text


def held_by(holder: Running, waiter: Running) -> str:
    """What is said of a lock that the one holds and the other waits for."""
    name = "0" * 32 + "-x.drv.out.lock"
    lock = LockFile(f"/nix/store/{name}", Role.STORE, 1000.0, 0, Known.YES)
    lock = replace(lock, holders=(holder,), blocked=(waiter,))
    return " ".join("\n".join(lock_lines([lock], 1120.0)).split())


def test_who_waits_for_itself_is_told_so() -> None:
    worker = Running(7, "nix-daemon 5", "root", 1000.0, 5, "nix build")
    assert "which is itself: it waits for ever" in held_by(worker, worker)
    assert "you wait for yourself" in held_by(worker, replace(worker, pid=8))
    assert "yourself" not in held_by(worker, replace(worker, pid=8, client=6))


def test_a_worker_whose_client_is_gone_is_told_to_work_for_nobody() -> None:
    worker = Running(7, "nix-daemon 5", "root", 1000.0, 5, client_gone=True)
    assert "its client is gone, so nobody waits for its work" in held_by(worker, Running(8))
