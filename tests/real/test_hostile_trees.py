# SPDX-License-Identifier: MIT
"""Debris as a hostile builder would leave it, in a store where files are shared by hard links."""

import os

import pytest

from real import namespace as ns
from real.builds import Build, start_build, strand
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import AT_ONCE, helper, scan, socket_path, statuses, warden


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_hostile_tree_is_removed_and_nothing_outside_it_changes(rig: Rig, user: str) -> None:
    build = start_build(rig, Recipe("hostile", hostile=True))
    strand(rig, build)
    shared = share_a_valid_file(rig, build)
    before = picture(rig.etc, f"{rig.base}/outside")
    with helper(rig, "nobody"):
        report = scan(rig, "--yes", "--socket", socket_path(rig), user=user)
    assert statuses(report) == dict.fromkeys(build.entries, "removed")
    assert picture(rig.etc, f"{rig.base}/outside") == before
    assert unregistered(rig) == set()
    assert_is_as_nix_made_it(shared)


# As a builder: the store directory is group-writable and sticky, so all of this is allowed.
SQUAT = r"""
cd /nix/store
hash=0123456789abcdfghijklmnpqrsvwxyz
mkdir "$(printf 'evil\nname\033[31m\377')"
mkdir $hash-tree; echo x > $hash-tree/file
ln -s "$1" $hash-link
ln -s "$1/file" $hash-link.lock
mkfifo -m 600 $hash-fifo.lock
(umask 077; : > $hash-empty.lock; echo x > $hash-full.lock; mkdir $hash-directory.lock)
mkdir -m 777 $hash-open-to-others
mkdir $hash-old.old-1-2 $hash-check.check $hash-chroot.drv.chroot
mkdir -m 700 tmp-storewarden-1-0; echo x > tmp-storewarden-1-0/file
ln -s "$1" tmp-storewarden-2-0
"""
HASH = "0123456789abcdfghijklmnpqrsvwxyz"
KEPT = {"evil\nname\033[31m\udcff"}


def test_names_that_a_builder_chose_mislead_nobody(rig: Rig) -> None:
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    builder = ["setpriv", f"--reuid={build.uid}", f"--regid={rig.build_group}", "--clear-groups"]
    squat = [*builder, "sh", "-ec", SQUAT, "sh", f"{rig.base}/outside"]
    made = ns.run(rig.namespace, squat)
    assert made.returncode == 0, made.stderr
    outside = picture(rig.etc, f"{rig.base}/outside")
    valid = {path: picture(rig.outside(path)) for path in valid_paths(rig)}
    # A link under a lock's name goes first, and what it covers in the same run.
    runs = [("--dry-run", rig.user), ("--dry-run", "root"), ("--yes", "root")]
    codes = []
    for word, user in runs:
        done = warden(rig, "scan", *AT_ONCE, word, user=user)
        assert "\x1b" not in done.stdout + done.stderr
        codes.append(done.returncode)
    assert codes == [0, 0, 0]
    assert picture(rig.etc, f"{rig.base}/outside") == outside
    assert {path: picture(rig.outside(path)) for path in valid_paths(rig)} == valid
    left = {os.path.basename(path) for path in unregistered(rig)}
    assert {name for name in left if not name.startswith("tmp-")} == KEPT


def share_a_valid_file(rig: Rig, build: Build) -> str:
    """A valid path whose inode the debris holds too, as Nix's optimiser brings about."""
    source = f"{rig.base}/scratch/valid"
    with open(source, "w", encoding="ascii") as file:
        file.write("valid\n")
    added = ns.run(rig.namespace, ["nix-store", "--add", source])
    shared = rig.outside(added.stdout.strip())
    os.link(shared, f"{rig.outside(build.outputs['out'])}/closed/in/shared")
    assert os.lstat(shared).st_nlink == 2
    return shared


def assert_is_as_nix_made_it(path: str) -> None:
    status = os.lstat(path)
    assert (status.st_mode & 0o7777, status.st_mtime, status.st_uid) == (0o444, 1, 0)
    assert status.st_nlink == 1
    assert ns.read(path) == "valid\n"
