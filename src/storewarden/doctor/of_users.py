# SPDX-License-Identifier: MIT
"""As whom builds run: the group, its members, and who else has their uids. Pure."""

from collections.abc import Iterator
from dataclasses import replace

from storewarden import host
from storewarden.doctor.diagnosis import Diagnosis, Step, note, ok, problem, unknown
from storewarden.doctor.facts import Accounts, Facts, Settings, Unknown
from storewarden.doctor.of_daemon import place_of_settings

_TAKEN_BY_MACOS = range(300, 305)
"""By users that macOS 15 brought (NixOS/nix#10892)."""
_ISSUES_OF_GROUP = ("NixOS/nix#6064", "NixOS/nix#12343")
_ISSUES_OF_MACOS = ("NixOS/nix#10892", "nix-darwin/nix-darwin#970")


def of_users(facts: Facts, settings: Settings) -> Iterator[Diagnosis]:
    """The build users, by Nix's settings and the system's accounts."""
    name, found, group = "build-users", facts.accounts, settings.build_group
    if group is None:
        yield unknown(name, "As whom builds run Nix does not tell", "")
    elif isinstance(found, Unknown):
        yield unknown(name, f"The build users cannot be looked up: {found.reason}", "")
    elif settings.allocates:
        yield _allocating(found)
        yield from _known(facts, settings.uids)
    elif not group:
        yield note(
            name,
            "There are no build users: builds run as whoever runs Nix",
            "What they strand cannot be told from Nix's own copies, and is only reported.",
        )
    else:
        yield from _members(found)
        yield from _clashes(facts, found)
        if group != facts.config.build_group:
            yield problem(
                "build-group",
                f"Nix builds as members of {group}, and storewarden looks for those of"
                f" {facts.config.build_group}",
                "What builds strand is taken for somebody else's, and kept.",
                *_told_group(facts, group),
            )


def _told_group(facts: Facts, group: str) -> tuple[Step, ...]:
    """Where it is set, for watcher and helper alike."""
    line = f'build-group = "{group}"'
    if system := facts.kernel.declared:
        words = f"services.storewarden.settings.{line};"
        return (Step(f"In the configuration of {system}: {words}"),)
    return (Step(f"Set {line} in the configuration."),)


def _allocating(found: Accounts) -> Diagnosis:
    if not found.allocated:
        return ok("build-users", "Nix allocates the uids of builds by itself")
    return problem(
        "build-users",
        f"Accounts have uids that Nix allocates to builds: {', '.join(found.allocated)}",
        "Nix ends every process of a uid before and after a build as it.",
        Step("Give these accounts other uids."),
    )


def _known(facts: Facts, uids: range) -> Iterator[Diagnosis]:
    """Whether storewarden knows the uids of builds, and which lock Nix holds for each.

    Fewer do no harm: Nix counts its slots from the first (user-lock.cc, 2.34.6).
    """
    known = range(host.FIRST_ALLOCATED, host.FIRST_ALLOCATED + host.ALLOCATED)
    if uids.start != known.start or uids.stop > known.stop:
        yield problem(
            "uid-range",
            f"Nix allocates uids from {uids.start} to {uids.stop - 1}, and storewarden knows only"
            f" those from {known.start} to {known.stop - 1}",
            "What builds strand is taken for somebody else's, and kept.",
            Step(f"Leave start-id and id-count in {place_of_settings(facts)} at their defaults."),
        )


def _members(found: Accounts) -> Iterator[Diagnosis]:
    look = Step(
        f"Who is in it? (macOS: dscl . -read /Groups/{found.group})", f"getent group {found.group}"
    )
    lost = [name for name, uid in found.members if uid is None]
    if not found.exists or not found.members:
        how = "has no members" if found.exists else "does not exist"
        yield replace(
            problem(
                "build-users",
                f"The group of the build users, {found.group}, {how}",
                "Nix refuses to build, and what builds have stranded is not known as theirs.",
                look,
                Step(
                    "Where only root builds, as in a container: build-users-group = (empty). What"
                    " builds strand is only reported then."
                ),
            ),
            issues=_ISSUES_OF_GROUP,
        )
    elif lost:
        yield replace(
            problem(
                "build-users",
                f"Build users are gone: {', '.join(lost)}",
                "Nix fails when it comes to one of them, and what they have stranded belongs to"
                " nobody. An update to macOS 15 takes away those with the uids 301 to 304.",
                look,
                Step(
                    "On macOS, with Determinate's installer: make them anew.",
                    "sudo /nix/nix-installer repair sequoia",
                ),
            ),
            issues=_ISSUES_OF_MACOS,
        )
    else:
        yield ok("build-users", f"{len(found.members)} build users in {found.group}")


def _clashes(facts: Facts, found: Accounts) -> Iterator[Diagnosis]:
    if found.shared:
        pairs = ", ".join(f"{member} is also {other}" for member, other in found.shared)
        yield problem(
            "uid-clash",
            f"Build users share their uid with other accounts: {pairs}",
            "Nix ends every process of a build user before and after each build, and a build could"
            " read and change what belongs to that account.",
            Step("Give the build users uids of their own."),
        )
    if found.logins:
        yield problem(
            "logins",
            f"Accounts that somebody logs in with are build users: {', '.join(found.logins)}",
            "Nix builds as them, and ends every process of theirs before and after a build.",
            Step(f"Take them out of the group {found.group}, or take away their shell."),
        )
    low = [name for name, uid in found.members if uid in _TAKEN_BY_MACOS]
    if facts.kernel.darwin and low:
        yield replace(
            note(
                "uid-taken",
                f"Build users have uids that macOS 15 takes: {', '.join(low)}",
                "The update to it removes them; builds then fail.",
                Step("Give them others first, with the script of NixOS/nix#10892."),
            ),
            issues=_ISSUES_OF_MACOS,
        )
