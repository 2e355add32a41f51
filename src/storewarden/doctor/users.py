# SPDX-License-Identifier: MIT
"""As whom builds run: the group, its members, who else has their uids; and their home."""

import grp
import os
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from storewarden.doctor.nix import Installation, place_of_settings
from storewarden.doctor.patient import Diagnosis, Patient, Step, Subject, Unknown, exists, within
from storewarden.nix_queries import Settings
from storewarden.readable import count_text
from storewarden.store.store import Known

_BUILD_USERS = Subject("build-users")
_SHELTER = "/homeless-shelter"
"""What Nix sets HOME to in every build (libstore, 2.3 to 2.35)."""
_TAKEN_BY_MACOS = range(300, 305)
"""By users that macOS 15 brought (NixOS/nix#10892)."""
_ISSUES_OF_MACOS = ("NixOS/nix#10892", "nix-darwin/nix-darwin#970")


@dataclass(frozen=True, slots=True)
class Accounts:
    """The build users, as the system knows them."""

    group: str
    exists: bool
    members: tuple[tuple[str, int | None], ...] = ()
    """Names with uids; None for a member that no longer exists."""
    shared: tuple[tuple[str, str], ...] = ()
    """A build user, and another account with its uid."""
    logins: tuple[str, ...] = ()
    """Build users that can log in, as no installer makes them."""
    allocated: tuple[str, ...] = ()
    """Accounts whose uid lies where Nix allocates its own (`auto-allocate-uids`)."""


@dataclass(frozen=True, slots=True)
class Users:
    """The build users, and the home that they should not have."""

    accounts: Accounts | Unknown
    shelter: Known
    """Whether /homeless-shelter exists."""


def look(patient: Patient) -> Users:
    """The accounts that builds run as by Nix's settings, or else by ours."""
    settings = patient[Installation].conf.settings
    if isinstance(settings, Unknown):
        settings = Settings()
    group = settings.build_group or patient.config.build_group
    return Users(within(lambda: look_at_accounts(group, settings)), exists(_SHELTER))


def look_at_accounts(group: str, settings: Settings) -> Accounts:
    """The members of that group, as Nix resolves them, and every account that shares a uid."""
    everybody = [(one.pw_name, one.pw_uid) for one in pwd.getpwall()]
    uids = settings.uids if settings.allocates else range(0)
    allocated = tuple(name for name, uid in everybody if uid in uids)
    try:
        names = grp.getgrnam(group).gr_mem
    except KeyError:
        return Accounts(group, exists=False, allocated=allocated)
    found = [(name, _account_of(name)) for name in names]
    members = tuple((name, one and one.pw_uid) for name, one in found)
    return Accounts(
        group,
        exists=True,
        members=members,
        shared=sharers(members, everybody),
        logins=tuple(name for name, one in found if one and logs_in(one.pw_shell)),
        allocated=allocated,
    )


def logs_in(shell: str) -> bool:
    """Whether an account with that shell is one that somebody logs in with."""
    return os.path.basename(shell) not in {"", "nologin", "false", "true", "noshell"}


def sharers(
    members: Iterable[tuple[str, int | None]], everybody: Iterable[tuple[str, int]]
) -> tuple[tuple[str, str], ...]:
    """Members of the group with each other account that has their uid."""
    by_uid: dict[int, list[str]] = {}
    for name, uid in everybody:
        by_uid.setdefault(uid, []).append(name)
    return tuple(
        (member, other)
        for member, uid in members
        if uid is not None
        for other in dict.fromkeys(by_uid.get(uid, ()))
        if other != member
    )


def _account_of(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """The build users, by Nix's settings and the system's accounts; their home."""
    settings = patient[Installation].conf.settings
    if patient[Installation].apart:
        return
    if not isinstance(settings, Unknown):
        yield from _build_users(patient, settings)
    yield _shelter(patient)


def _build_users(patient: Patient, settings: Settings) -> Iterator[Diagnosis]:
    """The build users, by Nix's settings and the system's accounts."""
    found, group = patient[Users].accounts, settings.build_group
    if not group and group is not None and _default_of_others(patient, found):
        group = patient.config.build_group
    if group is None:
        yield _BUILD_USERS.unknown("As whom builds run Nix does not tell")
    elif isinstance(found, Unknown):
        yield _BUILD_USERS.unknown(f"The build users cannot be looked up: {found.reason}")
    elif settings.allocates:
        yield _allocating(found)
        yield from _range(patient, settings.uids)
    elif not group:
        yield _BUILD_USERS.note(
            "There are no build users: builds run as whoever runs Nix",
            "What they strand cannot be told from Nix's own copies, and is only reported.",
        )
    else:
        yield from _members(found)
        yield from _clashes(patient, found)
        if group != patient.config.build_group:
            yield Subject("build-group").problem(
                f"Nix builds as members of {group}, and storewarden looks for those of"
                f" {patient.config.build_group}",
                "What builds strand is taken for somebody else's, and kept.",
                *_name_group(patient, group),
            )


def _default_of_others(patient: Patient, found: Accounts | Unknown) -> bool:
    """Whether that it is empty says nothing: so it is by default for all but root (globals.hh)."""
    return patient.uid != 0 and isinstance(found, Accounts) and bool(found.members)


def _name_group(patient: Patient, group: str) -> tuple[Step, ...]:
    """Where it is set, for watcher and helper alike."""
    line = f'build-group = "{group}"'
    if system := patient.declared:
        words = f"services.storewarden.settings.{line};"
        return (Step(f"In the configuration of {system}: {words}"),)
    return (Step(f"Set {line} in the configuration."),)


def _allocating(found: Accounts) -> Diagnosis:
    if not found.allocated:
        return _BUILD_USERS.ok("Nix allocates the uids of builds by itself")
    return _BUILD_USERS.problem(
        f"Accounts have uids that Nix allocates to builds: {', '.join(found.allocated)}",
        "Nix ends every process of a uid before and after a build as it.",
        Step("Give these accounts other uids."),
    )


def _range(patient: Patient, uids: range) -> Iterator[Diagnosis]:
    """Whether storewarden knows the uids of builds, and which lock Nix holds for each.

    Fewer do no harm: Nix counts its slots from the first (user-lock.cc, 2.34.6).
    """
    ours = Settings().uids
    if uids.start != ours.start or uids.stop > ours.stop:
        yield Subject("uid-range").problem(
            f"Nix allocates uids from {uids.start} to {uids.stop - 1}, and storewarden knows only"
            f" those from {ours.start} to {ours.stop - 1}",
            "What builds strand is taken for somebody else's, and kept.",
            Step(f"Leave start-id and id-count in {place_of_settings(patient)} at their defaults."),
        )


def _members(found: Accounts) -> Iterator[Diagnosis]:
    who = Step(
        f"Who is in it? (macOS: dscl . -read /Groups/{found.group})", f"getent group {found.group}"
    )
    lost = [name for name, uid in found.members if uid is None]
    if not found.exists or not found.members:
        how = "has no members" if found.exists else "does not exist"
        yield _BUILD_USERS.problem(
            f"The group of the build users, {found.group}, {how}",
            "Nix refuses to build, and what builds have stranded is not known as theirs.",
            who,
            Step(
                "Where only root builds, as in a container: build-users-group = (empty). What"
                " builds strand is only reported then."
            ),
            issues=("NixOS/nix#6064", "NixOS/nix#12343"),
        )
    elif lost:
        anew = "On macOS, with Determinate's installer: make them anew."
        yield _BUILD_USERS.problem(
            f"Build users are gone: {', '.join(lost)}",
            "Nix fails when it comes to one of them, and what they have stranded belongs to"
            " nobody. An update to macOS 15 takes away those with the uids 301 to 304.",
            who,
            Step(anew, "sudo /nix/nix-installer repair sequoia"),
            issues=_ISSUES_OF_MACOS,
        )
    else:
        yield _BUILD_USERS.ok(f"{count_text(len(found.members), 'build user')} in {found.group}")


def _clashes(patient: Patient, found: Accounts) -> Iterator[Diagnosis]:
    if found.shared:
        pairs = ", ".join(f"{member} is also {other}" for member, other in found.shared)
        yield Subject("uid-clash").problem(
            f"Build users share their uid with other accounts: {pairs}",
            "Nix ends every process of a build user before and after each build, and a build could"
            " read and change what belongs to that account.",
            Step("Give the build users uids of their own."),
        )
    if found.logins:
        yield Subject("logins").problem(
            f"Accounts that somebody logs in with are build users: {', '.join(found.logins)}",
            "Nix builds as them, and ends every process of theirs before and after a build.",
            Step(f"Take them out of the group {found.group}, or take away their shell."),
        )
    low = [name for name, uid in found.members if uid in _TAKEN_BY_MACOS]
    if patient.darwin and low:
        yield Subject("uid-taken").note(
            f"Build users have uids that macOS 15 takes: {', '.join(low)}",
            "The update to it removes them; builds then fail.",
            Step("Give them others first, with the script of NixOS/nix#10892."),
            issues=_ISSUES_OF_MACOS,
        )


def _shelter(patient: Patient) -> Diagnosis:
    subject, place, shelter = Subject("homeless-shelter"), _SHELTER, patient[Users].shelter
    if shelter is Known.NO:
        return subject.ok(f"There is no {place}")
    if shelter is Known.UNKNOWN:
        return subject.unknown(f"Whether {place} exists cannot be seen")
    return subject.problem(
        f"{place} exists",
        "A builder without a sandbox made it. Nix refuses to build without a sandbox as long"
        " as it is there.",
        Step("See what is in it; it is nobody's home.", f"sudo find {place} | head"),
        Step("Remove it.", f"sudo rm -r {place}"),
        issues=("NixOS/nix#11295", "ipetkov/crane#815"),
    )
