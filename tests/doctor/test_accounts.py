# SPDX-License-Identifier: MIT
"""Build users as the system knows them, and who shares their uids."""

import grp
import pwd

import pytest

from storewarden.doctor.accounts import logs_in, look_at_accounts, sharers
from storewarden.doctor.facts import Settings

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
