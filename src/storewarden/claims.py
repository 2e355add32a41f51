# SPDX-License-Identifier: MIT
"""The one rule by which an entry is kept or may go. Pure; run by the watcher and by the helper.

They share the rule and no facts. A claim that was not looked at is unknown, and unknown keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from typing import Self

from storewarden.store.entries import EntryKind
from storewarden.store.paths import Origin
from storewarden.store.store import UNKNOWN, Fact, Known


class Proof(Flag):
    """What is to be proved dead, and so which claims must be known to be absent."""

    COVERED = auto()
    """An output whose covering locks are known. No build can be writing into it while they are
    held, whoever its build user is at work for: only an orphan is left to exclude."""
    UNCOVERED = auto()
    """Any other output: the claims of its build user stand in."""
    LOCK = auto()
    CHROOT = auto()
    TREE = COVERED | UNCOVERED | CHROOT
    ANY = TREE | LOCK


class Claim(StrEnum):
    """Anything that says an entry is wanted: a row each, in the order in which people are told.

    Its name in the audit log; its number in docs/proof.md, in whose order the helper asks (no proof
    needs two of one number); the proofs that need it; what keeps the entry if it holds, and if it
    could not be seen. Each of the two witnesses (observer, helper) has a look of its own for it.
    """

    asked: int
    proofs: Proof
    if_yes: str
    if_unknown: str

    def __new__(cls, name: str, asked: int, proofs: Proof, if_yes: str, if_unknown: str) -> Self:
        """One row."""
        claim = str.__new__(cls, name)
        claim._value_ = name
        claim.asked, claim.proofs = asked, proofs
        claim.if_yes, claim.if_unknown = if_yes, if_unknown
        return claim

    # fmt: off
    VALID_TO_NIX = ("valid-to-nix", 1, Proof.ANY,
        "Nix says it is a valid path", "Nix could not be asked whether it is valid")
    VALID_IN_DATABASE = ("valid-in-database", 11, Proof.ANY,
        "the database has it as a valid path", "the database could not be read here")
    CHANGED = ("changed", 12, Proof.ANY,
        "it is no longer the entry that was looked at", "it could not be looked at again")
    COLLECTOR = ("collector-at-work", 4, Proof.ANY,
        "the garbage collector is at work",
        "whether the garbage collector is at work could not be seen")
    PATH_LOCK = ("path-lock-held", 6, Proof.ANY,
        "its lock is held, so a build or copy of it is alive", "its lock could not be tested")
    TOO_YOUNG = ("too-young", 2, Proof.ANY & ~Proof.COVERED,
        "it changed too recently", "its age could not be told")
    SHARED = ("writable-by-others", 10, Proof.UNCOVERED,
        ("others than its owner may write to it, its derivation is not known, and another"
         " build user is at work"),
        "others may write to it, and whether one is at work could not be seen")
    USER_LOCK = ("user-lock-held", 5, Proof.UNCOVERED,
        "its build user is in use by a build", "its build user's lock could not be tested")
    PROCESS = ("process-of-owner", 7, Proof.UNCOVERED,
        "a process of its owner is alive", "the processes of its owner could not all be seen")
    ORPHAN = ("orphan-of-owner", 9, Proof.COVERED,
        "a process of its owner is alive and not seen to belong to another build",
        "the processes of its owner could not all be seen")
    TEMP_ROOT = ("temp-root", 8, Proof.TREE,
        "a live process holds a temp root on it or its derivation", "temp roots could not be read")
    MOUNT = ("mount-inside", 3, Proof.TREE,
        "something is mounted on it or in it", "the mounts could not be read")
    COVERS = ("covers-what-is-there", 3, Proof.LOCK,
        "what it covers still lies there, and it tells whose that is",
        "whether what it covers is there could not be seen")
    INSIDE = ("process-inside", 10, Proof.CHROOT,
        "a process has its root or its directory in it",
        "whether a process is in it could not be seen")
    # fmt: on


class Verdict(StrEnum):
    """What may become of an entry."""

    KEEP = "keep"
    CANDIDATE = "candidate"
    """Nothing seen claims it, but not everything could be seen: only the helper can prove it."""
    REMOVABLE = "removable"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the reasons for it, each one plain sentence."""

    verdict: Verdict
    reasons: tuple[str, ...]
    unknown: tuple[Claim, ...] = ()
    """The claims that could not be settled."""
    claims: tuple[Claim, ...] = ()
    """Those that hold."""


Facts = Mapping[Claim, Fact]


def _needed(proof: Proof) -> tuple[Claim, ...]:
    return tuple(claim for claim in Claim if proof in claim.proofs)


_COVERED = _needed(Proof.COVERED)
PROOF: Mapping[EntryKind, tuple[Claim, ...]] = {
    EntryKind.OUTPUT: _needed(Proof.UNCOVERED),
    EntryKind.LOCK: _needed(Proof.LOCK),
    EntryKind.CHROOT: _needed(Proof.CHROOT),
}
"""What must be known to be absent before an entry of that kind is removed. No row: never."""


def proof_of(kind: EntryKind, origin: Origin | None) -> tuple[Claim, ...]:
    """What must be known to be absent before that entry is removed; nothing: it never is."""
    if kind is EntryKind.OUTPUT and origin is not None and origin.proved:
        return _COVERED
    return PROOF.get(kind, ())


REMOVED_BY_DEFAULT = frozenset({EntryKind.OUTPUT, EntryKind.LOCK})
"""What is removed without being asked for by kind."""


def judge(kind: EntryKind, origin: Origin | None, facts: Facts) -> Judgement:
    """The verdict on an entry of that kind and origin, given all that is known of it.

    Any claim known to hold keeps it. Where Nix could not be asked it is kept as well. Any other
    claim that is not known makes it a candidate; only if all are known absent is it removable.
    A fact that the proof does not need (an age that somebody asked for) counts all the same.
    """
    proof = proof_of(kind, origin)
    if not proof:
        return Judgement(Verdict.KEEP, (kind.only_reported,))
    looked = dict.fromkeys(proof, UNKNOWN) | dict(facts)
    claims = tuple(claim for claim, fact in looked.items() if fact.known is Known.YES)
    unknown = tuple(claim for claim, fact in looked.items() if fact.known is Known.UNKNOWN)
    doubts = tuple(explain(claim, looked[claim]) for claim in unknown)
    if claims:
        reasons = tuple(explain(claim, looked[claim]) for claim in claims)
        return Judgement(Verdict.KEEP, reasons, unknown, claims)
    if Claim.VALID_TO_NIX in unknown:
        return Judgement(Verdict.KEEP, doubts, unknown)
    if unknown:
        return Judgement(Verdict.CANDIDATE, doubts, unknown)
    return Judgement(Verdict.REMOVABLE, ("nothing claims it any more",))


def explain(claim: Claim, fact: Fact) -> str:
    """Why that fact keeps an entry, in plain words with what was seen."""
    text = claim.if_yes if fact.known is Known.YES else claim.if_unknown
    return f"{text} ({fact.detail})" if fact.detail else text
