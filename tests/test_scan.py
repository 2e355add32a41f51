# SPDX-License-Identifier: MIT
"""The sweep: what it finds in a real store directory, and that it only looks."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from storewarden.claims import Verdict
from storewarden.errors import StoreUnreadableError
from storewarden.readable import ThisStore, repair_path
from storewarden.scan import sweep
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind
from storewarden.store.paths import Deriver, StorePath, output_lock
from storewarden.store.store import Fact, Known
from storewarden.throwaway import ThrowawayStore
from sweeps import BEST, look_at, picture

ROOT = os.geteuid() == 0
STRANGE = [b"a\nb\x1b[2J", b"-rf", b"\xe2\x80\xae", b" ", b"~"]
if sys.platform != "darwin":  # whose file systems take no such name
    STRANGE.append(b"\xff\xfe")


def fill(place: ThrowawayStore) -> dict[str, EntryKind]:
    """Debris of every kind; gives the kind of each entry that is to be found."""
    derivation = place.add_derivation("hello-2.12")
    output = place.strand(derivation)
    kept = place.invent("kept")
    expected = {
        output.base_name: EntryKind.OUTPUT,
        output_lock(derivation, "out"): EntryKind.LOCK,
        f"{place.invent('substituted').base_name}.lock": EntryKind.LOCK,
        f"{place.invent('boxed.drv').base_name}.chroot": EntryKind.CHROOT,
        f"{kept.base_name}.check": EntryKind.CHECK,
        f"{kept.base_name}.old-1-2": EntryKind.OLD,
        f"{kept.base_name}.tmp": EntryKind.TEMPORARY,
        # An ordinary user cannot make files of anyone else's.
        kept.base_name: EntryKind.OUTPUT_OF_ROOT if ROOT else EntryKind.OUTPUT,
        "tmp-123-0": EntryKind.TEMPORARY,
        ".DS_Store": EntryKind.FOREIGN,
        place.invent("lost").base_name: EntryKind.MISSING,
    }
    place.add_lock(f"{place.invent('substituted').base_name}.lock")
    os.mkdir(place.path(f"{place.invent('boxed.drv').base_name}.chroot"))
    for suffix in (".check", ".old-1-2", ".tmp", ""):
        place.add_file(f"{kept.base_name}{suffix}")
    for name in ("tmp-123-0", ".DS_Store"):
        place.add_file(name)
    place.register(place.invent("lost"))
    return expected


def test_every_kind_is_found_sorted_by_name_and_nothing_valid(place: ThrowawayStore) -> None:
    expected = fill(place)
    findings = look_at(place)
    assert {name: finding.kind for name, finding in findings.items()} == expected
    assert list(findings) == sorted(findings)


def test_only_the_kinds_asked_for_are_found(place: ThrowawayStore) -> None:
    expected = fill(place)
    for kind in EntryKind:
        names = {name for name, its_kind in expected.items() if its_kind is kind}
        assert set(look_at(place, (kind,))) == names


def test_a_stranded_output_is_found_with_all_that_is_known_of_it(place: ThrowawayStore) -> None:
    derivation = place.add_derivation("hello-2.12")
    output = place.strand(derivation)
    finding = look_at(place)[output.base_name]
    assert finding.judgement.verdict is BEST
    assert finding.deriver == Deriver(derivation, "out")
    assert [lock.base_name for lock in finding.locks] == [output_lock(derivation, "out")]
    assert finding.entry is not None
    assert finding.entry.uid == place.builder
    assert finding.age is not None
    assert 0 <= finding.age < 60
    assert finding.size is not None
    assert (finding.size > 0, finding.size_complete) == (True, True)


def test_the_lock_of_a_dead_output_goes_with_it_and_names_its_derivation(
    place: ThrowawayStore,
) -> None:
    derivation = place.add_derivation("hello-2.12")
    place.strand(derivation, "dev")
    lock = look_at(place)[output_lock(derivation, "dev")]
    assert lock.judgement.verdict is BEST
    assert lock.deriver == Deriver(derivation, "dev")


def test_an_empty_finding_is_no_finding(place: ThrowawayStore) -> None:
    swept = sweep(place.as_store())
    assert (swept.findings, swept.notes, swept.nix_silent, swept.leftovers) == ((), (), "", False)


def test_a_sweep_writes_nothing(place: ThrowawayStore) -> None:
    fill(place)
    top = os.path.dirname(place.store_dir.path)
    sweep(place.as_store())
    before = picture(top)
    sweep(place.as_store())
    assert picture(top) == before


def test_what_is_missing_on_disk_is_found_with_what_to_do(place: ThrowawayStore) -> None:
    path = place.add_valid("lost-1.0")
    os.unlink(place.path(path.base_name))
    missing = look_at(place)[path.base_name]
    assert (missing.kind, missing.entry) == (EntryKind.MISSING, None)
    assert missing.judgement.verdict is Verdict.KEEP
    this = ThisStore(place.store_dir.path, place.state_dir)
    repair = this.command(repair_path(place.path(path.base_name)))
    assert f"to fetch or build it again: {repair}" in missing.judgement.reasons


def test_a_missing_derivation_is_not_told_to_be_repaired_which_nix_refuses(
    place: ThrowawayStore,
) -> None:
    path = place.add_derivation("lost")
    os.unlink(place.path(path.base_name))
    reasons = " ".join(look_at(place)[path.base_name].judgement.reasons)
    assert "storewarden explain" in reasons
    assert "--repair-path" not in reasons


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_foreign_and_kept(place: ThrowawayStore, name: bytes) -> None:
    with open(os.path.join(os.fsencode(place.store_dir.path), name), "wb"):
        finding = look_at(place)[os.fsdecode(name)]
    assert (finding.kind, finding.judgement.verdict) == (EntryKind.FOREIGN, Verdict.KEEP)


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_what_a_renumbered_build_user_left_is_told_with_what_removes_it_and_kept(
    place: ThrowawayStore,
) -> None:
    place.builder = 4321
    proved = place.strand(place.add_derivation("known"))
    unproved = place.invent("unknown")
    place.add_output(unproved)
    os.mkdir(place.path("no store path"))
    os.chown(place.path("no store path"), 4321, 4321)
    found = look_at(place)
    assert found[proved.base_name].kind is EntryKind.OUTPUT, "its derivation proves it"
    finding = found[unproved.base_name]
    assert (finding.kind, finding.judgement.verdict) == (EntryKind.FOREIGN, Verdict.KEEP)
    this = ThisStore(place.store_dir.path, place.state_dir)
    delete = this.command(f"nix-store --delete {place.path(unproved.base_name)}")
    why, cure = finding.judgement.reasons
    assert "of an earlier installation" in why
    assert cure == f"to have Nix delete it, if nothing builds it: {delete}"
    assert found["no store path"].judgement.reasons == (EntryKind.FOREIGN.only_reported,)
    hiding = replace(place.as_store(), hidden_uid=4321)
    [hidden] = [f for f in sweep(hiding).findings if f.base_name == unproved.base_name]
    assert hidden.judgement.reasons == (EntryKind.FOREIGN.only_reported,)


def test_a_private_directory_of_ours_is_a_leftover(place: ThrowawayStore) -> None:
    os.mkdir(place.path(f"{PRIVATE_PREFIX}12-0"), 0o700)
    swept = sweep(place.as_store())
    assert (swept.leftovers, swept.findings) == (True, ())


def test_what_is_only_called_like_one_is_reported(place: ThrowawayStore) -> None:
    place.add_file(f"{PRIVATE_PREFIX}12-0")
    swept = sweep(place.as_store())
    assert (swept.leftovers, [found.kind for found in swept.findings]) == (
        False,
        [EntryKind.TEMPORARY],
    )


def test_what_nix_says_is_valid_is_no_finding_whatever_the_database_said(
    place: ThrowawayStore,
) -> None:
    output = place.strand(place.add_derivation("hello-2.12"))
    store = replace(
        place.as_store(),
        ask_nix=lambda paths: {p: Fact(Known.YES if p == output else Known.NO) for p in paths},
    )
    assert output.base_name not in look_at(store)


def test_where_nix_does_not_answer_everything_is_kept(place: ThrowawayStore) -> None:
    fill(place)
    silent = Fact(Known.UNKNOWN, "the daemon is hung")
    store = replace(place.as_store(), ask_nix=lambda paths: dict.fromkeys(paths, silent))
    swept = sweep(store)
    assert swept.nix_silent == "the daemon is hung"
    assert {finding.judgement.verdict for finding in swept.findings} == {Verdict.KEEP}


def test_where_nix_forgets_a_path_that_path_is_kept(place: ThrowawayStore) -> None:
    output = place.strand(place.add_derivation("hello-2.12"))
    store = replace(place.as_store(), ask_nix=lambda _: {})
    finding = look_at(store)[output.base_name]
    assert finding.judgement.verdict is Verdict.KEEP


def test_an_entry_that_vanishes_meanwhile_does_no_harm(place: ThrowawayStore) -> None:
    output = place.invent("fleeting")
    place.add_file(output.base_name)
    store = place.as_store()

    def vanish_and_ask(paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        os.unlink(place.path(output.base_name))
        return dict.fromkeys(paths, Fact(Known.NO))

    assert output.base_name in look_at(replace(store, ask_nix=vanish_and_ask))


def test_a_store_that_is_not_there_is_refused(place: ThrowawayStore) -> None:
    store = replace(place.as_store(), view=place.path("absent"))
    with pytest.raises(StoreUnreadableError, match="absent"):
        sweep(store)


def test_time_grows_with_the_number_of_findings_and_no_faster(place: ThrowawayStore) -> None:
    def spent(first: int, last: int) -> float:
        for number in range(first, last):
            place.add_lock(f"{number:032d}-x.lock")
        before = time.process_time()
        assert len(sweep(place.as_store()).findings) == last
        return time.process_time() - before

    few, many = spent(0, 1000), spent(1000, 5000)
    assert many < few * 5 * 3 + 1
