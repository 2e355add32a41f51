# SPDX-License-Identifier: MIT
"""The one rule, over every combination of facts that the proofs can have."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.store.entries import EntryKind
from storewarden.store.verdict import (
    NO,
    PROOF,
    REMOVED_BY_DEFAULT,
    REPORT_ONLY,
    Claim,
    Fact,
    Known,
    Verdict,
    explain,
    judge,
)

TOWARDS_REMOVAL = [Verdict.KEEP, Verdict.CANDIDATE, Verdict.REMOVABLE]
FACTS = {known: Fact(known) for known in Known}
combinations = st.fixed_dictionaries(
    {}, optional={claim: st.sampled_from(list(FACTS.values())) for claim in Claim}
)


def every_combination(kind: EntryKind) -> Iterator[dict[Claim, Fact]]:
    """All facts that there can be about an entry of that kind."""
    for known in itertools.product(FACTS.values(), repeat=len(PROOF[kind])):
        yield dict(zip(PROOF[kind], known, strict=True))


def test_the_proofs_ask_for_what_they_must() -> None:
    always = {
        Claim.VALID_TO_NIX,
        Claim.VALID_IN_DATABASE,
        Claim.CHANGED,
        Claim.TOO_YOUNG,
        Claim.COLLECTOR,
        Claim.PATH_LOCK,
    }
    assert set(PROOF) == {EntryKind.OUTPUT, EntryKind.LOCK, EntryKind.CHROOT}
    assert set(PROOF[EntryKind.OUTPUT]) == set(Claim) - {Claim.COVERS, Claim.INSIDE}
    assert set(PROOF[EntryKind.LOCK]) == always | {Claim.COVERS}
    assert set(PROOF[EntryKind.CHROOT]) == always | {Claim.TEMP_ROOT, Claim.MOUNT, Claim.INSIDE}


def test_only_outputs_and_lock_files_are_removed_without_being_asked_for_by_kind() -> None:
    assert {EntryKind.OUTPUT, EntryKind.LOCK} == REMOVED_BY_DEFAULT


@pytest.mark.parametrize("kind", list(PROOF))
def test_only_what_no_claim_holds_of_is_removable(kind: EntryKind) -> None:
    for facts in every_combination(kind):
        known = {fact.known for fact in facts.values()}
        judgement = judge(kind, facts)
        assert (judgement.verdict is Verdict.REMOVABLE) == (known == {Known.NO})
        if Known.YES in known or facts[Claim.VALID_TO_NIX].known is not Known.NO:
            assert judgement.verdict is Verdict.KEEP
        assert judgement.reasons


@pytest.mark.parametrize("kind", list(PROOF))
def test_a_claim_that_holds_keeps_whatever_else_is_known(kind: EntryKind) -> None:
    for claim in PROOF[kind]:
        for others in (NO, Fact(Known.UNKNOWN)):
            facts = dict.fromkeys(PROOF[kind], others) | {claim: Fact(Known.YES, "seen")}
            judgement = judge(kind, facts)
            assert judgement.verdict is Verdict.KEEP
            assert judgement.reasons == (explain(claim, Fact(Known.YES, "seen")),)


@given(kind=st.sampled_from(EntryKind), facts=combinations, claim=st.sampled_from(Claim))
def test_learning_yes_or_unknown_never_moves_towards_removal(
    kind: EntryKind, facts: dict[Claim, Fact], claim: Claim
) -> None:
    with_no = TOWARDS_REMOVAL.index(judge(kind, facts | {claim: NO}).verdict)
    unknown = TOWARDS_REMOVAL.index(judge(kind, facts | {claim: FACTS[Known.UNKNOWN]}).verdict)
    with_yes = TOWARDS_REMOVAL.index(judge(kind, facts | {claim: FACTS[Known.YES]}).verdict)
    assert with_yes <= unknown <= with_no


@given(kind=st.sampled_from(EntryKind), facts=combinations)
def test_a_missing_fact_is_an_unknown_one(kind: EntryKind, facts: dict[Claim, Fact]) -> None:
    filled = {claim: facts.get(claim, FACTS[Known.UNKNOWN]) for claim in Claim}
    assert judge(kind, facts) == judge(kind, filled)


@pytest.mark.parametrize("kind", list(PROOF))
def test_nothing_known_at_all_keeps(kind: EntryKind) -> None:
    judgement = judge(kind, {})
    assert judgement.verdict is Verdict.KEEP
    assert set(judgement.unknown) == set(PROOF[kind])


@pytest.mark.parametrize("kind", sorted(set(EntryKind) - set(PROOF)))
def test_a_kind_that_is_only_reported_is_never_removable(kind: EntryKind) -> None:
    judgement = judge(kind, dict.fromkeys(Claim, NO))
    assert judgement.verdict is Verdict.KEEP
    assert judgement.reasons == (REPORT_ONLY[kind],)


def test_every_kind_is_either_proved_or_only_reported() -> None:
    assert set(PROOF) | set(REPORT_ONLY) == set(EntryKind)
    assert not set(PROOF) & set(REPORT_ONLY)


@pytest.mark.parametrize("kind", list(PROOF))
@pytest.mark.parametrize("claim", sorted(Claim))
def test_one_unknown_claim_makes_a_candidate_unless_it_is_nix_own_word(
    kind: EntryKind, claim: Claim
) -> None:
    facts = dict.fromkeys(PROOF[kind], NO) | {claim: Fact(Known.UNKNOWN)}
    judgement = judge(kind, facts)
    if claim not in PROOF[kind]:
        assert judgement.verdict is Verdict.REMOVABLE
        return
    wanted = Verdict.KEEP if claim is Claim.VALID_TO_NIX else Verdict.CANDIDATE
    assert (judgement.verdict, judgement.unknown) == (wanted, (claim,))


@pytest.mark.parametrize("claim", sorted(Claim))
def test_every_claim_is_explained_both_ways_with_what_was_seen(claim: Claim) -> None:
    yes = explain(claim, Fact(Known.YES, "by process 7"))
    unknown = explain(claim, Fact(Known.UNKNOWN))
    assert yes.endswith(" (by process 7)")
    assert unknown
    assert unknown not in yes
