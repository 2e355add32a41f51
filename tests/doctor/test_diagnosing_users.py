# SPDX-License-Identifier: MIT
"""What facts mean, of those who builds run as."""

from dataclasses import replace

import pytest

from storewarden import host
from storewarden.doctor.diagnosis import Severity
from storewarden.doctor.facts import Accounts, Kernel, Unknown
from well import SETTINGS, WELL, named, severities, with_settings

OK, NOTE, UNKNOWN, PROBLEM = Severity.OK, Severity.NOTE, Severity.UNKNOWN, Severity.PROBLEM
MAC = replace(WELL, kernel=Kernel(darwin=True))


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
    assert named(replace(WELL, accounts=accounts), "build-users").severity is severity


def test_another_group_is_set_in_the_configuration_of_both() -> None:
    facts = with_settings(WELL, replace(SETTINGS, build_group="builders"))
    [step] = named(facts, "build-group").steps
    assert 'build-group = "builders"' in str(step)


def test_a_uid_of_two_accounts_is_a_problem() -> None:
    accounts = replace(WELL.accounts, shared=(("nixbld1", "postgres"),))  # type: ignore[arg-type]
    assert named(replace(WELL, accounts=accounts), "uid-clash").severity is PROBLEM


def test_a_person_among_the_build_users_is_a_problem() -> None:
    accounts = replace(WELL.accounts, logins=("alice",))  # type: ignore[arg-type]
    assert severities(replace(WELL, accounts=accounts), PROBLEM) == {"logins"}


def test_uids_that_macos_15_takes_are_told_there_alone() -> None:
    accounts = Accounts("nixbld", exists=True, members=(("_nixbld1", 301),))
    assert "uid-taken" not in severities(replace(WELL, accounts=accounts), NOTE)
    found = named(replace(MAC, accounts=accounts), "uid-taken")
    assert (found.severity, found.issues[0]) == (NOTE, "NixOS/nix#10892")


def test_uids_that_nix_allocates_need_no_group_but_nobody_else_among_them() -> None:
    allocating = with_settings(WELL, replace(SETTINGS, allocates=True, build_group=""))
    assert named(allocating, "build-users").severity is OK
    accounts = Accounts("nixbld", exists=False, allocated=("alice",))
    assert named(replace(allocating, accounts=accounts), "build-users").severity is PROBLEM


def test_an_account_among_them_is_to_move_and_not_what_nix_allocates() -> None:
    allocating = with_settings(WELL, replace(SETTINGS, allocates=True, build_group=""))
    accounts = Accounts("nixbld", exists=False, allocated=("alice",))
    found = named(replace(allocating, accounts=accounts), "build-users")
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
    facts = with_settings(WELL, settings)
    assert ("uid-range" not in severities(facts, PROBLEM)) == known
    assert "uid-range" not in severities(
        with_settings(WELL, replace(settings, allocates=False)), PROBLEM
    )
    if not known:
        found = named(facts, "uid-range")
        assert f"Nix allocates uids from {first} to " in found.title
        assert f"storewarden knows only those from {FIRST} to {FIRST + COUNT - 1}" in found.title
