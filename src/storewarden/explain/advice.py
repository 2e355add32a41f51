# SPDX-License-Identifier: MIT
"""What the user can do about an entry, with the exact command. Pure; nothing of it is ever run."""

import shlex
from collections.abc import Iterator
from dataclasses import replace

from storewarden.claims import PROOF, Claim, Verdict
from storewarden.copyable import USUAL, ThisStore, can_be_copied
from storewarden.explain.of_valid import Advice, of_missing, of_valid
from storewarden.explain.story import Story, What
from storewarden.findings import Finding
from storewarden.store.entries import EntryKind
from storewarden.store.paths import StorePath, parse_lock_name

_ASK_AGAIN = Advice("does nix-daemon run? then ask again", "storewarden scan --dry-run")
_GC = "not while a content-addressed build runs: it takes the output of that as well"


def advice(story: Story, this: ThisStore = USUAL) -> tuple[Advice, ...]:
    """What may be done about that entry of this store, the most fitting first."""
    return tuple(dict.fromkeys(_to_copy(one, this) for one in _advice(story)))


def _to_copy(one: Advice, this: ThisStore) -> Advice:
    if can_be_copied(one.command):
        return replace(one, command=this.command(one.command))
    return Advice(f"{one.purpose} (with which command cannot be shown: its name is not plain)")


def _advice(story: Story) -> Iterator[Advice]:
    match story.what:
        case What.VALID:
            yield from of_valid(story)
        case What.MISSING:
            yield from of_missing(story)
        case What.ABSENT:
            yield from _absent(story)
        case What.SHARED_FILE:
            yield Advice(f"Nix drops it once no path uses it any more; {_GC}", "nix-store --gc")
        case What.LEFTOVER:
            yield Advice("to finish that removal", "sudo storewarden scan --yes")
        case What.UNREGISTERED if story.finding is not None:
            if story.finding.kind in PROOF:
                yield from _debris(story, story.finding)
            else:
                yield from _reported(story, story.finding.kind)
        case _:
            yield _ASK_AGAIN


def _absent(story: Story) -> Iterator[Advice]:
    if any(lock.holders for lock in story.locks):
        yield from _held(story)
    name = StorePath.maybe(story.pointed.base_name)
    if name is None or parse_lock_name(name.base_name):
        return  # nothing that could be built or fetched
    for deriver in story.derivers:
        drv = shlex.quote(_beside(story, deriver.derivation.base_name))
        yield Advice(
            f"to build the derivation that it is of ({deriver.output})",
            f"nix-store --realise {drv}",
        )
    if not story.derivers:
        yield Advice(
            "to fetch it, if a substituter has it", f"nix-store --realise {shlex.quote(story.path)}"
        )


def _debris(story: Story, finding: Finding) -> Iterator[Advice]:
    if finding.judgement.verdict is not Verdict.KEEP:
        kind = " --kind chroot" if finding.kind is EntryKind.CHROOT else ""
        yield Advice("to prove it dead and remove it", f"sudo storewarden scan{kind} --yes")
        return
    claims = finding.judgement.claims
    if Claim.TOO_YOUNG in claims:
        yield Advice(
            "look again in a few seconds", f"storewarden explain {shlex.quote(story.path)}"
        )
    if Claim.COLLECTOR in claims:
        yield Advice("wait for the garbage collector to end")
    if Claim.COVERS in claims:
        yield Advice("it goes together with what it covers", "sudo storewarden scan --yes")
    yield from _held(story)
    if not claims:
        yield _ASK_AGAIN


def _held(story: Story) -> Iterator[Advice]:
    """Whoever keeps it alive: wait, or end that process. Only said, never done."""
    holders = [one for lock in story.locks for one in lock.holders]
    if not holders and story.user_lock and story.user_lock.holders:
        # It may be a build of anything: whoever ends it for this path's sake ends another's work.
        yield Advice("a build runs as its build user, perhaps of something else: wait for its end")
        return
    if holders:
        yield Advice("a build or copy is at work: wait for it, or stop it where it was started")
    for one in holders or story.users:
        if one.client is not None and one.client_command is not None:
            text = f"to end process {one.client}, for which process {one.pid} works"
            yield Advice(text, f"kill {one.client}")
        else:
            yield Advice(f"to end process {one.pid} and what it does", f"sudo kill {one.pid}")


def _reported(story: Story, kind: EntryKind) -> Iterator[Advice]:
    path = shlex.quote(story.path)
    match kind:
        case EntryKind.OUTPUT_OF_ROOT if _is_poisoned_lock(story):
            yield Advice(
                "Nix takes a lock file that is not empty for one that was deleted, and no build"
                " gets past it; to have Nix delete it, if nobody holds it",
                f"nix-store --delete {path}",
            )
        case EntryKind.OUTPUT_OF_ROOT:
            yield Advice(
                "to have Nix delete it, if nobody is at work on it", f"nix-store --delete {path}"
            )
        case EntryKind.TEMPORARY:
            yield Advice(
                f"Nix's collector removes it, with all that nothing needs; {_GC}", "nix-store --gc"
            )
        case EntryKind.CHECK:
            first = shlex.quote(story.path.removesuffix(".check"))
            yield Advice("to see what differed between the builds", f"diff -r {first} {path}")
            yield Advice("to delete it then", f"nix-store --delete {path}")
        case EntryKind.OLD:
            kept = shlex.quote(story.path.rpartition(".old-")[0])
            yield Advice("is what it was replaced by whole?", f"nix-store --verify-path {kept}")
            yield Advice("if so, to delete it", f"nix-store --delete {path}")
        case _:
            yield Advice("look at it: whose it is cannot be told here", f"ls -lad {path}")


def _is_poisoned_lock(story: Story) -> bool:
    return any(lock.path == story.path and lock.size for lock in story.locks)


def _beside(story: Story, base_name: str) -> str:
    return f"{story.path.rpartition('/')[0]}/{base_name}"


__all__ = ["Advice", "advice"]
