# SPDX-License-Identifier: MIT
"""What the user can do about an entry, with the exact command. Pure; nothing of it is ever run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from storewarden.claims import PROOF, Claim, Verdict
from storewarden.explain.entry import Story, What
from storewarden.readable import (
    USUAL,
    ThisStore,
    can_be_copied,
    check_again,
    make_anew,
    repair_path,
)
from storewarden.scan import Finding
from storewarden.store.entries import EntryKind
from storewarden.store.paths import DERIVATION_SUFFIX, StorePath, parse_lock_name

_SYSTEM = re.compile(r"(?:/run|.*/gcroots)/(current|booted)-system")
_CHANGES = {"current": ("running", "switch"), "booted": ("booted", "reboot")}
_GENERATION = re.compile(r"(.*/profiles/.+)-([0-9]+)-link")
_GC = "not while a content-addressed build runs: it takes the output of that as well"


@dataclass(frozen=True, slots=True)
class Advice:
    """A command, and what it is for; the command may be empty where waiting is all."""

    purpose: str
    command: str = ""


_ASK_AGAIN = Advice("does nix-daemon run? then ask again", "storewarden scan --dry-run")


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
            yield from _of_valid(story)
        case What.MISSING:
            yield from _of_missing(story)
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
                yield from _reported(story, story.finding)
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
    if set(claims) == {Claim.TOO_YOUNG}:
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
    using = [use.process for use in story.uses.seen]
    if not holders and len(using) > 1:
        # Whoever began first started the others: a child may be gone before it is ended.
        using = [min(using, key=lambda one: (one.began or 0, one.pid))]
        yield Advice(f"of the processes that use it, {using[0].pid} began first")
    for one in holders or using:
        if one.client is not None and one.client_command is not None:
            text = f"to end process {one.client}, for which process {one.pid} works"
            yield Advice(text, f"kill {one.client}")
        else:
            yield Advice(f"to end process {one.pid} and what it does", f"sudo kill {one.pid}")


def _reported(story: Story, finding: Finding) -> Iterator[Advice]:
    path = shlex.quote(story.path)
    match finding.kind:
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
        case EntryKind.FOREIGN if finding.of_stranger:
            owner = story.owner_name
            now = f"the owner's number is now {owner}'s" if owner else "the owner's number is free"
            yield Advice(
                f"to have Nix delete it, if nothing builds it ({now})", f"nix-store --delete {path}"
            )
        case _:
            yield Advice("look at it: whose it is cannot be told here", f"ls -lad {path}")


def _is_poisoned_lock(story: Story) -> bool:
    return any(lock.path == story.path and lock.size for lock in story.locks)


def _beside(story: Story, base_name: str) -> str:
    return f"{story.path.rpartition('/')[0]}/{base_name}"


def _of_valid(story: Story) -> Iterator[Advice]:
    """How to have it go, and how to have it whole."""
    path = shlex.quote(story.path)
    roots, users = story.roots, story.referrers
    if roots is None or users is None:
        return
    for line in roots.lines:
        yield from _root(line.partition(" -> ")[0], path)
    if users.lines:
        yield Advice(
            "to delete it together with all that refers to it, as far as no root keeps that",
            f"nix-store --query --referrers-closure {path} | xargs nix-store --delete",
        )
    elif not roots.problem and not users.problem:
        when = "once no root is left, to delete it" if roots.lines else "to delete it"
        yield Advice(
            f"{when} (without sudo, whose SUDO_COMMAND would itself keep it)",
            f"nix-store --delete {path}",
        )
    yield Advice("to check that its files are whole", f"nix-store --verify-path {path}")
    if _is_repairable(story):
        yield Advice("to fetch or build it again if they are not", repair_path(story.path))
    yield from _made_anew(story)


def advice_on_doubtful(path: str, derivation: str, this: ThisStore = USUAL) -> tuple[Advice, ...]:
    """What may be done about a valid path that may hold stale files."""
    advised = (
        Advice(
            "to check it: Nix itself says nothing and ends with 0, whatever comes out; if it was"
            " the same, the service forgets the doubt",
            check_again(derivation),
        ),
        Advice("to replace it, once nothing needs it", make_anew(path, derivation)),
    )
    return tuple(_to_copy(one, this) for one in advised)


def _root(link: str, path: str) -> Iterator[Advice]:
    words = link.split("/")
    if link.startswith("{temp:"):
        pid = link.removeprefix("{temp:").removesuffix("}")
        yield Advice(f"a temp root: it goes when process {pid} ends", f"ps -fp {pid}")
    elif link.startswith("/proc/") and words[2].isdigit():
        yield Advice(f"process {words[2]} uses it: it is free when that ends", f"ps -fp {words[2]}")
    elif link == "{censored}":
        yield Advice("a process uses it that only root can see", f"sudo storewarden explain {path}")
    elif link.startswith("/proc/"):
        yield Advice(f"the kernel's settings name it: it is free when {link} no longer does")
    elif system := _SYSTEM.fullmatch(link):
        which, event = _CHANGES[system[1]]
        yield Advice(f"it belongs to the {which} system: that changes by a {event}")
    elif link.startswith("/"):
        if found := _GENERATION.fullmatch(link):
            profile, number = shlex.quote(found[1]), found[2]
            yield Advice(
                f"to drop that generation, unless it is the one in use ({number})",
                f"nix-env --profile {profile} --delete-generations {number}",
            )
            return
        yield Advice("to drop that root", f"rm {shlex.quote(link)}")


def _of_missing(story: Story) -> Iterator[Advice]:
    """How to have it back."""
    # Never first `--verify --check-contents --repair`: of what is not there and nothing refers to
    # it fetches nothing, but forgets it, with its deriver (seen with 2.8).
    if _is_repairable(story):
        yield Advice("to fetch or build it again", repair_path(story.path))
    yield from _made_anew(story)


def _is_repairable(story: Story) -> bool:
    """Whether Nix may be able to: it refuses what was added to the store, `.drv` and sources."""
    added = story.registered and story.registered.content_address and not story.registered.deriver
    return not added and not story.path.endswith(DERIVATION_SUFFIX)


def _made_anew(story: Story) -> Iterator[Advice]:
    """For what Nix cannot repair: floating outputs, and what was added to the store."""
    if story.registered is None or not story.registered.content_address:
        return
    if story.what is What.MISSING and story.path.endswith(DERIVATION_SUFFIX):
        # To delete it Nix 2.8 wants to read it.
        yield Advice(
            "Nix cannot repair a derivation; to have it forget it, with all else that is not there,"
            " so that it can be instantiated again",
            "sudo nix-store --verify",
        )
    elif deriver := story.registered.deriver:
        yield Advice(
            "if that fails, and nothing needs it: to delete it and build it again",
            make_anew(story.path, deriver),
        )
    elif story.what is What.MISSING:
        yield Advice(
            "Nix cannot repair what was added to the store; to delete it, if nothing needs it, so"
            " that it can be added again",
            f"nix-store --delete {shlex.quote(story.path)}",
        )
