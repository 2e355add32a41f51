# SPDX-License-Identifier: MIT
"""Build users as the system knows them, and what it means who they are."""

import grp
import pwd
from dataclasses import replace

import pytest

from storewarden import host
from storewarden.doctor.patient import Severity, Unknown
from storewarden.doctor.users import Accounts, Users, logs_in, look_at_accounts, sharers
from storewarden.nix_queries import Settings
from storewarden.store.store import Known
from well import (
    MAC,
    NOTE,
    OK,
    PROBLEM,
    SETTINGS,
    UNKNOWN,
    WELL,
    but,
    named,
    severities,
    with_settings,
)

NOBODY_HAS_IT = "storewarden-no-such-group"


def test_who_shares_a_uid_with_a_build_user_is_told_with_it() -> None:
    everybody = [("nixbld1", 30001), ("postgres", 30001), ("nixbld2", 30002), ("root", 0)]
    members = [("nixbld1", 30001), ("nixbld2", 30002), ("gone", None)]
    assert sharers(members, everybody) == (("nixbld1", "postgres"),)


def test_an_account_that_is_listed_twice_shares_nothing_with_itself() -> None:
    assert sharers([("nixbld1", 30001)], [("nixbld1", 30001), ("nixbld1", 30001)]) == ()


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/sbin/nologin", "/usr/bin/false", ""])
def test_with_such_a_shell_nobody_logs_in(shell: str) -> None:
    assert not logs_in(shell)
    assert logs_in("/bin/sh")


def test_a_group_that_is_not_there_is_told_as_such() -> None:
    found = look_at_accounts(NOBODY_HAS_IT, Settings())
    assert (found.group, found.exists, found.members) == (NOBODY_HAS_IT, False, ())


def test_the_members_of_a_real_group_are_found_with_their_uids() -> None:
    groups = [(one.gr_name, one.gr_mem) for one in grp.getgrall() if one.gr_mem]
    if not groups:
        pytest.skip("no group has members here")
    name, members = groups[0]
    found = look_at_accounts(name, Settings())
    assert found.exists
    assert [member for member, _ in found.members] == members
    for member, uid in found.members:
        assert uid is None or uid == pwd.getpwnam(member).pw_uid


def test_accounts_among_the_uids_that_nix_allocates_are_told() -> None:
    root = pwd.getpwuid(0).pw_name
    settings = Settings(allocates=True, first_allocated=0, allocated=1)
    assert look_at_accounts(NOBODY_HAS_IT, settings).allocated == (root,)
    settings = Settings(allocates=False, first_allocated=0, allocated=1)
    assert look_at_accounts(NOBODY_HAS_IT, settings).allocated == ()
    assert root not in look_at_accounts(NOBODY_HAS_IT, Settings(allocates=True)).allocated


@pytest.mark.parametrize(
    ("accounts", "severity"),
    [
        (Accounts("nixbld", exists=False), PROBLEM),
        (Accounts("nixbld", exists=True), PROBLEM),
        (Accounts("nixbld", exists=True, members=(("nixbld1", None),)), PROBLEM),
        (Unknown("there was no answer within 10 s"), UNKNOWN),
    ],
)
def test_build_users_are_there_or_missed(accounts: Accounts | Unknown, severity: Severity) -> None:
    assert named(but(WELL, Users, accounts=accounts), "build-users").severity is severity


def test_another_group_is_set_in_the_configuration_of_both() -> None:
    patient = with_settings(WELL, replace(SETTINGS, build_group="builders"))
    [step] = named(patient, "build-group").steps
    assert 'build-group = "builders"' in str(step)


@pytest.mark.parametrize(
    ("uid", "accounts", "severity"),
    [
        (0, WELL[Users].accounts, NOTE),
        (1000, WELL[Users].accounts, OK),  # Nix tells all but root that it is empty
        (1000, Accounts("nixbld", exists=False), NOTE),
    ],
)
def test_an_empty_group_counts_where_root_asks(
    uid: int, accounts: Accounts, severity: Severity
) -> None:
    patient = replace(with_settings(WELL, replace(SETTINGS, build_group="")), uid=uid)
    assert named(but(patient, Users, accounts=accounts), "build-users").severity is severity


def test_a_uid_of_two_accounts_is_a_problem() -> None:
    accounts = replace(WELL[Users].accounts, shared=(("nixbld1", "postgres"),))  # type: ignore[arg-type]
    assert named(but(WELL, Users, accounts=accounts), "uid-clash").severity is PROBLEM


def test_a_person_among_the_build_users_is_a_problem() -> None:
    accounts = replace(WELL[Users].accounts, logins=("alice",))  # type: ignore[arg-type]
    assert severities(but(WELL, Users, accounts=accounts), PROBLEM) == {"logins"}


def test_uids_that_macos_15_takes_are_told_there_alone() -> None:
    accounts = Accounts("nixbld", exists=True, members=(("_nixbld1", 301),))
    assert "uid-taken" not in severities(but(WELL, Users, accounts=accounts), NOTE)
    found = named(but(MAC, Users, accounts=accounts), "uid-taken")
    assert (found.severity, found.issues[0]) == (NOTE, "NixOS/nix#10892")


def test_uids_that_nix_allocates_need_no_group_but_nobody_else_among_them() -> None:
    allocating = with_settings(WELL, replace(SETTINGS, allocates=True, build_group=""))
    assert named(allocating, "build-users").severity is OK
    accounts = Accounts("nixbld", exists=False, allocated=("alice",))
    assert named(but(allocating, Users, accounts=accounts), "build-users").severity is PROBLEM


def test_an_account_among_them_is_to_move_and_not_what_nix_allocates() -> None:
    allocating = with_settings(WELL, replace(SETTINGS, allocates=True, build_group=""))
    accounts = Accounts("nixbld", exists=False, allocated=("alice",))
    found = named(but(allocating, Users, accounts=accounts), "build-users")
    assert "start-id" not in str(found.steps)


FIRST, COUNT = host.FIRST_ALLOCATED, host.ALLOCATED


@pytest.mark.parametrize(
    ("first", "count", "known"),
    [
        (None, None, True),
        (FIRST, COUNT, True),
        (FIRST, COUNT // 2, True),
        (FIRST, COUNT + 1, False),
        (FIRST + host.PER_SLOT, COUNT // 2, False),  # another slot for each
        (1000, COUNT, False),
        (1000, None, False),
    ],
)
def test_uids_that_storewarden_does_not_know_as_those_of_builds_are_told(
    first: int | None, count: int | None, *, known: bool
) -> None:
    settings = replace(SETTINGS, allocates=True, first_allocated=first, allocated=count)
    patient = with_settings(WELL, settings)
    assert ("uid-range" not in severities(patient, PROBLEM)) == known
    assert "uid-range" not in severities(
        with_settings(WELL, replace(settings, allocates=False)), PROBLEM
    )
    if not known:
        found = named(patient, "uid-range")
        assert f"Nix allocates uids from {first} to " in found.title
        assert f"storewarden knows only those from {FIRST} to {FIRST + COUNT - 1}" in found.title


@pytest.mark.parametrize(("shelter", "severity"), [(Known.YES, PROBLEM), (Known.UNKNOWN, UNKNOWN)])
def test_homeless_shelter_is_missed_by_nobody(shelter: Known, severity: Severity) -> None:
    assert named(but(WELL, Users, shelter=shelter), "homeless-shelter").severity is severity
