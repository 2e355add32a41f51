# SPDX-License-Identifier: MIT
"""Who builds here, resolved from the machine's own groups as Nix does; and who lives."""

import grp
import os
import pwd
from pathlib import Path

from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.store.store import build_users
from storewarden.throwaway import ThrowawayStore

ALLOCATED = (1000, 10, 5)


def test_no_such_group_has_no_members_but_the_allocated_uids_stay() -> None:
    users = build_users("no-such-group-here", ALLOCATED)
    assert (users.gid, users.uids) == (None, frozenset())
    assert (users.slot(999), users.slot(1000), users.slot(1009), users.slot(1010)) == (
        None,
        0,
        1,
        None,
    )


def test_every_group_of_this_machine_resolves_to_its_listed_members() -> None:
    everybody = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    for group in grp.getgrall():
        users = build_users(group.gr_name, ALLOCATED)
        listed = {
            everybody[name] for name in grp.getgrnam(group.gr_name).gr_mem if name in everybody
        }
        assert users.uids == listed - {0}
        assert users.gid == grp.getgrnam(group.gr_name).gr_gid


@needs_root
def test_a_member_that_no_longer_exists_builds_nothing(tmp_path: Path) -> None:
    somebody = pwd.getpwuid(65534)
    (tmp_path / "group").write_text(f"builders:x:30000:gone,{somebody.pw_name},root\n")

    def members() -> list[int]:
        take_own_mounts()
        mount("--bind", f"{tmp_path}/group", "/etc/group")
        return sorted(build_users("builders", ALLOCATED).uids)

    assert in_child(members) == [65534]


def test_root_is_no_build_user_of_any_group() -> None:
    for group in grp.getgrall():
        assert not build_users(group.gr_name, ALLOCATED).own(0, group.gr_gid)


def test_a_roots_file_that_ended_meanwhile_hides_no_other(place: ThrowawayStore) -> None:
    directory, rooted = f"{place.state_dir}/temproots", place.invent("hello-2.12")
    for number in range(50):
        with open(f"{directory}/{number}", "wb") as file:
            file.write(os.fsencode(place.path(rooted.base_name)) + b"\0")

    def is_live(fd: int) -> bool:
        for name in os.listdir(directory):
            if name != "42":
                os.unlink(f"{directory}/{name}")
        return os.fstat(fd).st_nlink == 1

    assert place.as_store().temp_roots(is_live) == {rooted: ["42"]}
