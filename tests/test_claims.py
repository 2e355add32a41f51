# SPDX-License-Identifier: MIT
"""The one rule, over every combination of facts that the proofs can have."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.claims import (
    PROOF,
    REMOVED_BY_DEFAULT,
    Claim,
    Verdict,
    explain,
    judge,
    proof_of,
)
from storewarden.helper import hold
from storewarden.observe import PROBES
from storewarden.store.entries import EntryKind
from storewarden.store.paths import Deriver, Origin, StorePath
from storewarden.store.store import NO, Fact, Known

DERIVER = Deriver(StorePath(f"{'1c' * 16}-x.drv"), "out")
ORIGIN = Origin(DERIVER, (f"{DERIVER.derivation.base_name}.out.lock",), scratch=True)
PROVED = [*((kind, None) for kind in PROOF), (EntryKind.OUTPUT, ORIGIN)]
"""Each kind that has a proof, with what decides which proof."""
Proved = tuple[EntryKind, Origin | None]
TOWARDS_REMOVAL = [Verdict.KEEP, Verdict.CANDIDATE, Verdict.REMOVABLE]
FACTS = {known: Fact(known) for known in Known}
combinations = st.fixed_dictionaries(
    {}, optional={claim: st.sampled_from(list(FACTS.values())) for claim in Claim}
)


def every_combination(proved: Proved) -> Iterator[dict[Claim, Fact]]:
    """All facts that there can be about such an entry."""
    proof = proof_of(*proved)
    for known in itertools.product(FACTS.values(), repeat=len(proof)):
        yield dict(zip(proof, known, strict=True))


def test_the_proofs_ask_for_what_they_must() -> None:
    always = {
        Claim.VALID_TO_NIX,
        Claim.VALID_IN_DATABASE,
        Claim.CHANGED,
        Claim.COLLECTOR,
        Claim.PATH_LOCK,
    }
    of_a_tree = always | {Claim.TEMP_ROOT, Claim.MOUNT}
    of_its_user = {Claim.TOO_YOUNG, Claim.SHARED, Claim.USER_LOCK, Claim.PROCESS}
    assert set(PROOF) == {EntryKind.OUTPUT, EntryKind.LOCK, EntryKind.CHROOT}
    assert set(PROOF[EntryKind.OUTPUT]) == of_a_tree | of_its_user
    assert set(PROOF[EntryKind.LOCK]) == always | {Claim.TOO_YOUNG, Claim.COVERS}
    assert set(PROOF[EntryKind.CHROOT]) == of_a_tree | {Claim.TOO_YOUNG, Claim.INSIDE}


@pytest.mark.parametrize("proved", PROVED)
def test_no_proof_asks_for_two_claims_of_one_number(proved: Proved) -> None:
    numbers = [claim.asked for claim in proof_of(*proved)]
    assert len(set(numbers)) == len(numbers)


def test_the_numbers_are_those_of_the_table_in_the_proof() -> None:
    text = (Path(__file__).parent.parent / "docs" / "proof.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|(.*)\|$", text, re.MULTILINE)
    for column, origin in ((1, ORIGIN), (2, None)):
        told = [int(row[0]) for row in rows if row[column].strip()]
        assert told == sorted(claim.asked for claim in proof_of(EntryKind.OUTPUT, origin))


@pytest.mark.parametrize("looks", [hold.LOOKS, PROBES])
def test_each_witness_has_a_look_of_its_own_for_every_claim(
    looks: Mapping[Claim, Callable[..., object]],
) -> None:
    assert set(looks) == set(Claim)
    assert len(set(looks.values())) == len(Claim)


def test_where_its_locks_are_known_an_orphan_stands_for_all_claims_of_its_user() -> None:
    covered = set(proof_of(EntryKind.OUTPUT, ORIGIN))
    of_its_user = {Claim.TOO_YOUNG, Claim.SHARED, Claim.USER_LOCK, Claim.PROCESS}
    assert covered == set(PROOF[EntryKind.OUTPUT]) - of_its_user | {Claim.ORPHAN}


def test_an_origin_that_is_not_proved_leaves_the_claims_of_its_user_to_be_asked() -> None:
    unsure = replace(ORIGIN, proved=False)
    assert proof_of(EntryKind.OUTPUT, unsure) == PROOF[EntryKind.OUTPUT]


@pytest.mark.parametrize("kind", sorted(set(EntryKind) - {EntryKind.OUTPUT}))
def test_an_origin_changes_the_proof_of_outputs_alone(kind: EntryKind) -> None:
    assert proof_of(kind, ORIGIN) == proof_of(kind, None) == PROOF.get(kind, ())


def test_only_outputs_and_lock_files_are_removed_without_being_asked_for_by_kind() -> None:
    assert {EntryKind.OUTPUT, EntryKind.LOCK} == REMOVED_BY_DEFAULT


@pytest.mark.parametrize("proved", PROVED)
def test_only_what_no_claim_holds_of_is_removable(proved: Proved) -> None:
    for facts in every_combination(proved):
        known = {fact.known for fact in facts.values()}
        judgement = judge(*proved, facts)
        assert (judgement.verdict is Verdict.REMOVABLE) == (known == {Known.NO})
        if Known.YES in known or facts[Claim.VALID_TO_NIX].known is not Known.NO:
            assert judgement.verdict is Verdict.KEEP
        assert judgement.reasons


@pytest.mark.parametrize("proved", PROVED)
def test_a_claim_that_holds_keeps_whatever_else_is_known(proved: Proved) -> None:
    # One that the proof does not ask for counts as well: an age that somebody has asked for.
    for claim in Claim:
        for others in (NO, Fact(Known.UNKNOWN)):
            facts = dict.fromkeys(proof_of(*proved), others) | {claim: Fact(Known.YES, "seen")}
            judgement = judge(*proved, facts)
            assert judgement.verdict is Verdict.KEEP
            assert judgement.reasons == (explain(claim, Fact(Known.YES, "seen")),)


anything = st.tuples(st.sampled_from(EntryKind), st.sampled_from([None, ORIGIN]))


@given(proved=anything, facts=combinations, claim=st.sampled_from(Claim))
def test_learning_yes_or_unknown_never_moves_towards_removal(
    proved: Proved, facts: dict[Claim, Fact], claim: Claim
) -> None:
    with_no = TOWARDS_REMOVAL.index(judge(*proved, facts | {claim: NO}).verdict)
    unknown = TOWARDS_REMOVAL.index(judge(*proved, facts | {claim: FACTS[Known.UNKNOWN]}).verdict)
    with_yes = TOWARDS_REMOVAL.index(judge(*proved, facts | {claim: FACTS[Known.YES]}).verdict)
    assert with_yes <= unknown <= with_no


@given(proved=anything, facts=combinations)
def test_a_missing_fact_is_an_unknown_one(proved: Proved, facts: dict[Claim, Fact]) -> None:
    filled = dict.fromkeys(proof_of(*proved), FACTS[Known.UNKNOWN]) | facts
    assert judge(*proved, facts) == judge(*proved, filled)


@pytest.mark.parametrize("proved", PROVED)
def test_nothing_known_at_all_keeps(proved: Proved) -> None:
    judgement = judge(*proved, {})
    assert judgement.verdict is Verdict.KEEP
    assert set(judgement.unknown) == set(proof_of(*proved))


@pytest.mark.parametrize("kind", sorted(set(EntryKind) - set(PROOF)))
def test_a_kind_that_is_only_reported_is_never_removable(kind: EntryKind) -> None:
    judgement = judge(kind, None, dict.fromkeys(Claim, NO))
    assert judgement.verdict is Verdict.KEEP
    assert judgement.reasons == (kind.only_reported,)


def test_every_kind_is_either_proved_or_only_reported() -> None:
    assert set(PROOF) == {kind for kind in EntryKind if not kind.only_reported}


@pytest.mark.parametrize("proved", PROVED)
@pytest.mark.parametrize("claim", sorted(Claim))
def test_one_unknown_claim_makes_a_candidate_unless_it_is_nix_own_word(
    proved: Proved, claim: Claim
) -> None:
    facts = dict.fromkeys(proof_of(*proved), NO) | {claim: Fact(Known.UNKNOWN)}
    judgement = judge(*proved, facts)
    wanted = Verdict.KEEP if claim is Claim.VALID_TO_NIX else Verdict.CANDIDATE
    assert (judgement.verdict, judgement.unknown) == (wanted, (claim,))


@pytest.mark.parametrize("claim", sorted(Claim))
def test_every_claim_is_explained_both_ways_with_what_was_seen(claim: Claim) -> None:
    yes = explain(claim, Fact(Known.YES, "by process 7"))
    unknown = explain(claim, Fact(Known.UNKNOWN))
    assert (yes, unknown) == (f"{claim.if_yes} (by process 7)", claim.if_unknown)
    assert unknown
    assert unknown not in yes
