# SPDX-License-Identifier: MIT
"""What the user can do about a path that is registered, whether it is there or not. Pure."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from storewarden.copyable import repair_path
from storewarden.explain.story import Story, What
from storewarden.store.paths import DERIVATION_SUFFIX

_SYSTEM = re.compile(r"(?:/run|.*/gcroots)/(current|booted)-system")
_CHANGES = {"current": ("running", "switch"), "booted": ("booted", "reboot")}
_GENERATION = re.compile(r"(.*/profiles/.+)-([0-9]+)-link")


@dataclass(frozen=True, slots=True)
class Advice:
    """A command, and what it is for; the command may be empty where waiting is all."""

    purpose: str
    command: str = ""


def of_valid(story: Story) -> Iterator[Advice]:
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
    yield Advice("to fetch or build it again if they are not", repair_path(story.path))
    yield from _made_anew(story)


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


def of_missing(story: Story) -> Iterator[Advice]:
    """How to have it back."""
    # Never first `--verify --check-contents --repair`: of what is not there and nothing refers to
    # it fetches nothing, but forgets it, with its deriver (seen with 2.8).
    yield Advice("to fetch or build it again", repair_path(story.path))
    yield from _made_anew(story)


def _made_anew(story: Story) -> Iterator[Advice]:
    """For what Nix cannot repair: floating outputs, and what was added to the store."""
    if story.registered is None or not story.registered.content_address:
        return
    forget = f"nix-store --delete {shlex.quote(story.path)}"
    if story.what is What.MISSING and story.path.endswith(DERIVATION_SUFFIX):
        # To delete it Nix 2.8 wants to read it.
        yield Advice(
            "if that fails: to have Nix forget it, with all else that is not there, so that it can"
            " be instantiated again",
            "sudo nix-store --verify",
        )
    elif deriver := story.registered.deriver:
        yield Advice(
            "if that fails, and nothing needs it: to delete it and build it again",
            f"{forget} && nix-store --realise {shlex.quote(deriver)}",
        )
    elif story.what is What.MISSING:
        yield Advice(
            "if that fails, and nothing needs it: to delete it, so that it can be added again",
            forget,
        )
