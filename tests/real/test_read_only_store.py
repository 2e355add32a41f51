# SPDX-License-Identifier: MIT
"""A store that is mounted read-only over itself, as on NixOS, and only root can look below."""

from collections.abc import Iterator
from contextlib import contextmanager

from real import namespace as ns
from real.builds import stranded
from real.rig import Rig, picture
from real.warden import AT_ONCE, command, scan, statuses

MOUNT = "mount --bind /nix/store /nix/store && mount -o remount,ro,bind /nix/store"


@contextmanager
def read_only_store(rig: Rig) -> Iterator[None]:
    made = ns.run(rig.namespace, ["sh", "-c", MOUNT])
    assert made.returncode == 0, made.stderr
    yield
    assert ns.run(rig.namespace, ["umount", "/nix/store"]).returncode == 0


def test_root_repairs_a_read_only_store_which_stays_so_for_everybody_else(rig: Rig) -> None:
    build = stranded(rig, "debris")
    with read_only_store(rig):
        found = scan(rig, "--dry-run", user="nobody")
        assert {one["path"] for one in found["findings"]} == build.entries
        assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
        tried = ns.run(rig.namespace, ["touch", "/nix/store/written"])
        assert "Read-only file system" in tried.stderr


def test_where_it_cannot_be_made_writable_nothing_is_lost_and_the_reason_is_told(rig: Rig) -> None:
    build = stranded(rig, "debris")
    before = picture(rig.store)
    # Root in a container, say: it may not mount.
    unable = ["setpriv", "--bounding-set=-sys_admin"]
    with read_only_store(rig):
        done = ns.run(rig.namespace, [*unable, *command(rig, "scan", "--yes", *AT_ONCE)])
        assert done.returncode in {3, 4, 5}, done.stdout + done.stderr
        [line] = done.stderr.splitlines()
        assert line.startswith("storewarden: error: ")
        assert "read-only" in line
        assert picture(rig.store) == before
    assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
