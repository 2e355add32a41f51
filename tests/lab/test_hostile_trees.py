# SPDX-License-Identifier: MIT
"""All that a build user may do to its output, in a store that Nix itself has optimised."""

import os
from dataclasses import dataclass

from real import namespace as ns
from real.builds import start_build, strand, stranded
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered
from real.test_hostile_trees import test_names_that_a_builder_chose_mislead_nobody
from real.warden import AT_ONCE, scan, statuses, warden

SHARED = (test_names_that_a_builder_chose_mislead_nobody,)


@dataclass(frozen=True, slots=True)
class Shared:
    valid: list[str]
    """Files of valid paths that share one inode, seen from outside."""
    link: str
    """Nix's own name for that inode, below `.links`."""


def test_a_hostile_tree_with_hard_links_into_an_optimised_store_is_removed(rig: Rig) -> None:
    build = start_build(rig, Recipe("hostile", hostile=True))
    strand(rig, build)
    shared = optimised(rig)
    inside = rig.outside(build.outputs["out"])
    os.link(shared.link, f"{inside}/closed/in/linked")
    os.link(shared.valid[0], f"{inside}/shared")
    before = [picture_of_content(place) for place in (*shared.valid, shared.link)]
    outside = picture("/etc", f"{rig.base}/outside", f"{rig.root}/etc")

    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()
    assert [picture_of_content(place) for place in (*shared.valid, shared.link)] == before
    assert os.lstat(shared.link).st_nlink == len(shared.valid) + 1
    assert picture("/etc", f"{rig.base}/outside", f"{rig.root}/etc") == outside
    verified = ns.run(rig.namespace, ["nix-store", "--verify", "--check-contents"])
    assert verified.returncode == 0, verified.stderr


def test_a_tree_with_a_mount_in_it_is_kept_until_that_is_gone(rig: Rig) -> None:
    build = stranded(rig, "debris")
    place = f"{build.outputs['out']}/mounted"
    script = f"mkdir {place} && mount --bind {rig.base}/outside {place}"
    assert ns.run(rig.namespace, ["sh", "-ec", script]).returncode == 0
    outside = picture(f"{rig.base}/outside")
    done = warden(rig, "scan", "--yes", *AT_ONCE)
    assert done.returncode in {0, 5}, done.stdout + done.stderr
    assert "mounted" in done.stdout
    assert unregistered(rig) == build.entries
    assert picture(f"{rig.base}/outside") == outside
    assert ns.run(rig.namespace, ["umount", place]).returncode == 0
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
    assert picture(f"{rig.base}/outside") == outside


def optimised(rig: Rig) -> Shared:
    """Two valid paths of one content, made one inode by Nix."""
    paths = []
    for name in ("one", "two"):
        with open(f"{rig.base}/scratch/{name}", "w", encoding="ascii") as file:
            file.write("valid\n")
        added = ns.run(rig.namespace, ["nix-store", "--add", f"{rig.base}/scratch/{name}"])
        assert added.returncode == 0, added.stderr
        paths.append(rig.outside(added.stdout.strip()))
    assert ns.run(rig.namespace, ["nix-store", "--optimise"]).returncode == 0
    inode = os.lstat(paths[0]).st_ino
    links = [one.path for one in os.scandir(f"{rig.store}/.links") if one.inode() == inode]
    assert os.lstat(paths[1]).st_ino == inode
    assert len(links) == 1
    return Shared(paths, links[0])


def picture_of_content(place: str) -> tuple[object, ...]:
    status = os.lstat(place)
    return ns.read(place), status.st_mode, status.st_uid, status.st_mtime, status.st_ino
