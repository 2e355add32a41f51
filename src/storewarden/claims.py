# SPDX-License-Identifier: MIT
"""The one rule by which an entry is kept or may go. Pure; run by the watcher and by the helper.

They share the rule and no facts. A claim that was not looked at is unknown, and unknown keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from storewarden.store.entries import EntryKind
from storewarden.store.fact import UNKNOWN, Fact, Known
from storewarden.store.paths import Origin


class Claim(StrEnum):
    """Anything that says an entry is wanted. The values are what the audit log calls them."""

    VALID_TO_NIX = "valid-to-nix"
    VALID_IN_DATABASE = "valid-in-database"
    CHANGED = "changed"
    TOO_YOUNG = "too-young"
    COLLECTOR = "collector-at-work"
    PATH_LOCK = "path-lock-held"
    USER_LOCK = "user-lock-held"
    PROCESS = "process-of-owner"
    ORPHAN = "orphan-of-owner"
    TEMP_ROOT = "temp-root"
    MOUNT = "mount-inside"
    SHARED = "writable-by-others"
    COVERS = "covers-what-is-there"
    INSIDE = "process-inside"


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

_OF_USERS = (Claim.TOO_YOUNG, Claim.SHARED, Claim.USER_LOCK, Claim.PROCESS)
_VALID = (Claim.VALID_TO_NIX, Claim.VALID_IN_DATABASE)
_ALWAYS = (*_VALID, Claim.CHANGED, Claim.COLLECTOR, Claim.PATH_LOCK)
_COVERED = (*_ALWAYS, Claim.ORPHAN, Claim.TEMP_ROOT, Claim.MOUNT)
PROOF: Mapping[EntryKind, tuple[Claim, ...]] = {
    EntryKind.OUTPUT: (*_ALWAYS, *_OF_USERS, Claim.TEMP_ROOT, Claim.MOUNT),
    EntryKind.LOCK: (*_ALWAYS, Claim.TOO_YOUNG, Claim.COVERS),
    EntryKind.CHROOT: (*_ALWAYS, Claim.TOO_YOUNG, Claim.TEMP_ROOT, Claim.MOUNT, Claim.INSIDE),
}
"""What must be known to be absent before an entry of that kind is removed. No row: never."""


def proof_of(kind: EntryKind, origin: Origin | None) -> tuple[Claim, ...]:
    """What must be known to be absent before that entry is removed; nothing: it never is.

    Where the locks that cover an output are known, no build can be writing into it while they
    are held, whoever its build user is at work for: only an orphan is left to exclude. Where they
    are not known, the claims of the user stand in.
    """
    if kind is EntryKind.OUTPUT and origin is not None and origin.proved:
        return _COVERED
    return PROOF.get(kind, ())


REMOVED_BY_DEFAULT = frozenset({EntryKind.OUTPUT, EntryKind.LOCK})
"""What is removed without being asked for by kind."""

REPORT_ONLY: Mapping[EntryKind, str] = {
    EntryKind.OUTPUT_OF_ROOT: "made by Nix itself: may be a copy in progress or one to be resumed",
    EntryKind.TEMPORARY: "a temporary of Nix's own, which its garbage collector removes",
    EntryKind.CHECK: "left on purpose by a --check build whose result differed",
    EntryKind.OLD: "may be the only good copy of a path that was being replaced",
    EntryKind.FOREIGN: "not made by Nix's builders as far as can be told",
    EntryKind.MISSING: "registered as valid but not on disk",
}

_IF_YES: Mapping[Claim, str] = {
    Claim.VALID_TO_NIX: "Nix says it is a valid path",
    Claim.VALID_IN_DATABASE: "the database has it as a valid path",
    Claim.CHANGED: "it is no longer the entry that was looked at",
    Claim.TOO_YOUNG: "it changed too recently",
    Claim.COLLECTOR: "the garbage collector is at work",
    Claim.PATH_LOCK: "its lock is held, so a build or copy of it is alive",
    Claim.USER_LOCK: "its build user is in use by a build",
    Claim.PROCESS: "a process of its owner is alive",
    Claim.ORPHAN: "a process of its owner is alive and not seen to belong to another build",
    Claim.TEMP_ROOT: "a live process holds a temp root on it or its derivation",
    Claim.MOUNT: "something is mounted on it or in it",
    Claim.SHARED: "others than its owner may write to it, its derivation is not known, and another"
    " build user is at work",
    Claim.COVERS: "what it covers still lies there, and it tells whose that is",
    Claim.INSIDE: "a process has its root or its directory in it",
}

_IF_UNKNOWN: Mapping[Claim, str] = {
    Claim.VALID_TO_NIX: "Nix could not be asked whether it is valid",
    Claim.VALID_IN_DATABASE: "the database could not be read here",
    Claim.CHANGED: "it could not be looked at again",
    Claim.TOO_YOUNG: "its age could not be told",
    Claim.COLLECTOR: "whether the garbage collector is at work could not be seen",
    Claim.PATH_LOCK: "its lock could not be tested",
    Claim.USER_LOCK: "its build user's lock could not be tested",
    Claim.PROCESS: "the processes of its owner could not all be seen",
    Claim.ORPHAN: "the processes of its owner could not all be seen",
    Claim.TEMP_ROOT: "temp roots could not be read",
    Claim.MOUNT: "the mounts could not be read",
    Claim.SHARED: "others may write to it, and whether one is at work could not be seen",
    Claim.COVERS: "whether what it covers is there could not be seen",
    Claim.INSIDE: "whether a process is in it could not be seen",
}


def judge(kind: EntryKind, origin: Origin | None, facts: Facts) -> Judgement:
    """The verdict on an entry of that kind and origin, given all that is known of it.

    Any claim known to hold keeps it. Where Nix could not be asked it is kept as well. Any other
    claim that is not known makes it a candidate; only if all are known absent is it removable.
    A fact that the proof does not need (an age that somebody asked for) counts all the same.
    """
    proof = proof_of(kind, origin)
    if not proof:
        return Judgement(Verdict.KEEP, (REPORT_ONLY[kind],))
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
    text = (_IF_YES if fact.known is Known.YES else _IF_UNKNOWN)[claim]
    return f"{text} ({fact.detail})" if fact.detail else text
