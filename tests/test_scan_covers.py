# SPDX-License-Identifier: MIT
"""What a sweep must see though it was not asked for it, or though something beside it is gone."""

import os
from dataclasses import replace

import pytest

from storewarden.claims import Verdict
from storewarden.store.entries import EntryKind
from storewarden.store.paths import output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import holding, look_at, needs_lock_table


@needs_lock_table
def test_asked_for_locks_alone_a_lock_still_knows_what_it_covers(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello-2.12")
    output = place.strand(derivation)
    store = replace(place.as_store(), processes_of=lambda _: [])
    with holding(place.path(path_lock(output))):
        findings = look_at(store, (EntryKind.LOCK,))
    assert findings[output_lock(derivation, "out")].judgement.verdict is Verdict.KEEP


@pytest.mark.skipif(os.geteuid() != 0, reason="all that an ordinary user makes is a build user's")
def test_the_lock_beside_a_copy_of_roots_is_kept_with_it(place: ThrowawayStore) -> None:
    path = place.invent("half-substituted")
    place.add_file(path.base_name)
    place.add_lock(path_lock(path))
    findings = look_at(place)
    assert findings[path.base_name].kind is EntryKind.OUTPUT_OF_ROOT
    assert findings[path_lock(path)].judgement.verdict is Verdict.KEEP


@needs_lock_table
def test_the_roots_of_those_that_have_ended_hide_no_other(place: ThrowawayStore) -> None:
    output = place.strand(place.add_derivation("hello-2.12"))
    directory = f"{place.state_dir}/temproots"
    for number in range(50):
        os.close(os.open(f"{directory}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
    with open(f"{directory}/4242", "wb") as file:
        file.write(os.fsencode(place.path(output.base_name)) + b"\0")
    store = replace(place.as_store(), processes_of=lambda _: [])
    with holding(f"{directory}/4242"):
        assert look_at(store)[output.base_name].judgement.verdict is Verdict.KEEP
