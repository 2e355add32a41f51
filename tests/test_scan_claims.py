# SPDX-License-Identifier: MIT
"""What keeps a stranded output: each claim made by a real lock, process, root, clock or mode."""

import os
from collections.abc import Collection
from dataclasses import replace

import pytest

from storewarden.claims import Verdict
from storewarden.scan import Finding
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath, output_lock, path_lock
from storewarden.store.store import Known
from storewarden.throwaway import ThrowawayStore
from sweeps import BEST, alone, building_as, holding, look_at, needs_lock_table, user_lock


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    """A derivation whose output is stranded, with its lock."""
    found = place.add_derivation("hello-2.12")
    place.strand(found)
    return found


def output_of(place: ThrowawayStore) -> Finding:
    """The one stranded output."""
    (finding,) = look_at(alone(place), (EntryKind.OUTPUT,)).values()
    return finding


def assert_kept(place: ThrowawayStore, reason: str) -> Finding:
    """It is kept for that reason alone."""
    finding = output_of(place)
    assert finding.judgement.verdict is Verdict.KEEP
    (given,) = finding.judgement.reasons
    assert reason in given
    return finding


@needs_lock_table
@pytest.mark.usefixtures("derivation")
def test_a_held_path_lock_keeps_its_output(place: ThrowawayStore) -> None:
    output = StorePath(output_of(place).base_name)
    with holding(place.path(path_lock(output))) as pid:
        finding = assert_kept(place, f"by process {pid}")
    held = [lock for lock in finding.locks if lock.held is Known.YES]
    assert [(lock.base_name, lock.pid) for lock in held] == [(path_lock(output), pid)]
    assert held[0].command is not None
    assert held[0].command.isprintable()


@needs_lock_table
def test_a_held_output_lock_keeps_its_output_and_itself(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    name = output_lock(derivation, "out")
    with holding(place.path(name)):
        assert_kept(place, name)
        assert look_at(alone(place))[name].judgement.verdict is Verdict.KEEP


@needs_lock_table
def test_the_lock_of_another_output_keeps_nothing(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    place.add_lock(output_lock(derivation, "dev"))
    with holding(place.path(output_lock(derivation, "dev"))):
        assert output_of(place).judgement.verdict is BEST


@needs_lock_table
def test_a_lock_that_covers_a_kept_output_is_kept_with_it(
    place: ThrowawayStore, derivation: StorePath
) -> None:
    output = StorePath(output_of(place).base_name)
    with holding(place.path(path_lock(output))):
        lock = look_at(alone(place))[output_lock(derivation, "out")]
    assert lock.judgement.verdict is Verdict.KEEP
    assert any(output.base_name in reason for reason in lock.judgement.reasons)


@needs_lock_table
@pytest.mark.usefixtures("derivation")
def test_a_held_user_lock_keeps_what_that_user_left_and_no_known_lock_covers(
    place: ThrowawayStore,
) -> None:
    name, unknown = user_lock(place), place.invent("unknown")
    place.add_output(unknown)
    with holding(f"{place.state_dir}/{name}") as pid:
        findings = look_at(alone(place), (EntryKind.OUTPUT,))
    kept = findings.pop(unknown.base_name).judgement
    assert kept.verdict is Verdict.KEEP
    assert any(f"{name} by process {pid}" in reason for reason in kept.reasons)
    assert {finding.judgement.verdict for finding in findings.values()} == {BEST}
    with holding(f"{place.state_dir}/userpool/4321"):
        findings = look_at(alone(place), (EntryKind.OUTPUT,))
        assert {finding.judgement.verdict for finding in findings.values()} == {BEST}


@needs_lock_table
@pytest.mark.usefixtures("derivation")
def test_a_collector_at_work_keeps_everything(place: ThrowawayStore) -> None:
    with holding(f"{place.state_dir}/gc.lock"):
        assert_kept(place, "garbage collector is at work")
        kept = {finding.judgement.verdict for finding in look_at(alone(place)).values()}
    assert kept == {Verdict.KEEP}


@pytest.mark.usefixtures("derivation")
def test_a_living_process_of_the_build_user_keeps_what_it_left(place: ThrowawayStore) -> None:
    with building_as(place.builder) as pid:
        (finding,) = look_at(place, (EntryKind.OUTPUT,)).values()
    assert finding.judgement.verdict is Verdict.KEEP
    (reason,) = finding.judgement.reasons
    assert f"process {pid}" in reason
    (finding,) = look_at(place, (EntryKind.OUTPUT,)).values()
    assert finding.judgement.verdict is BEST


@pytest.mark.usefixtures("derivation")
def test_hidden_processes_make_a_candidate_at_best(place: ThrowawayStore) -> None:
    store = replace(place.as_store(), processes_of=lambda _: None)
    (finding,) = look_at(store, (EntryKind.OUTPUT,)).values()
    assert finding.judgement.verdict is Verdict.CANDIDATE


def _add_root(place: ThrowawayStore, *paths: str) -> str:
    file_name = f"{place.state_dir}/temproots/4242"
    with open(file_name, "wb") as file:
        file.write(b"".join(os.fsencode(path) + b"\0" for path in paths))
    return file_name


@needs_lock_table
@pytest.mark.parametrize("of", ["path", "derivation", "hash part"])
def test_a_live_temp_root_keeps_the_output(
    place: ThrowawayStore, derivation: StorePath, of: str
) -> None:
    output = output_of(place).base_name
    root = {
        "path": output,
        "derivation": derivation.base_name,
        "hash part": f"{output[:32]}-other",
    }[of]
    others = [place.path(place.invent(f"other-{n}").base_name) for n in range(2)]
    roots = _add_root(place, others[0], place.path(root), others[1])
    assert output_of(place).judgement.verdict is BEST
    with holding(roots):
        assert_kept(place, "process 4242")


@needs_lock_table
@pytest.mark.usefixtures("derivation")
def test_what_stands_in_a_live_roots_file_besides_paths_does_no_harm(place: ThrowawayStore) -> None:
    with holding(_add_root(place, "", "/", "\udcff", "x" * 5000, "/nix/store/..")):
        assert output_of(place).judgement.verdict is BEST


@pytest.mark.usefixtures("derivation")
def test_a_fresh_output_is_too_young_whatever_its_mtime(place: ThrowawayStore) -> None:
    output = output_of(place).base_name
    os.utime(place.path(output), (1, 1))
    store = place.as_store(min_age=3600)
    finding = look_at(store)[output]
    assert finding.judgement.verdict is Verdict.KEEP
    assert any("too recently" in reason for reason in finding.judgement.reasons)
    assert {f.judgement.verdict for f in look_at(store).values()} == {Verdict.KEEP}


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
def test_an_output_open_to_others_that_no_known_lock_covers_waits_for_all_build_users(
    place: ThrowawayStore, mode: int
) -> None:
    known = place.strand(place.add_derivation("known"))
    unknown = place.invent("unknown")
    place.add_output(unknown)
    for path in (known, unknown):
        os.chmod(place.path(path.base_name), mode)
    store = place.as_store()
    other = store.build_users.everyone[1][-1]

    def processes(uids: Collection[int]) -> list[int]:
        return [4711] if other in uids else []

    findings = look_at(replace(store, processes_of=processes))
    assert findings[known.base_name].judgement.verdict is BEST
    assert findings[unknown.base_name].judgement.verdict is Verdict.KEEP
    findings = look_at(alone(place))
    assert findings[unknown.base_name].judgement.verdict is BEST
