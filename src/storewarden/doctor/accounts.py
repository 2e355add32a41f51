# SPDX-License-Identifier: MIT
"""The accounts that builds run as, and who else has their uids."""

import grp
import os
import pwd
from collections.abc import Iterable

from storewarden.doctor.facts import Accounts, Settings


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
