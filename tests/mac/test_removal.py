# SPDX-License-Identifier: MIT
"""Removal with what only macOS has: flags of files, syncs of its own, and calls that fail."""

import errno
import os

import pytest

from mac import installed as service
from mac.machine import Mac
from mac.test_story import removed
from real import namespace as ns
from real.builds import stranded
from real.rig import unregistered

_SYNCS = "/var/db/standin/full-syncs"


def scan(mac: Mac) -> str:
    """What `sudo storewarden scan --yes` prints of debris of any age."""
    done = mac.warden("scan", "--yes", "-v", "--min-age", "0", user="root")
    return done.stdout + done.stderr


def test_what_a_builder_made_immutable_is_removed(mac: Mac) -> None:
    build = stranded(mac.rig, "immutable")
    out = build.outputs["out"]
    script = f"""
cd {out}
mkdir closed loose
echo x >closed/file
echo x >loose/file
ln -s loose/file link
chflags uchg closed/file closed loose/file
chflags uappnd loose
"""
    done = mac.run(
        "setpriv", "--reuid=351", "--regid=350", "--clear-groups", "sh", "-ec", script, user="root"
    )
    assert done.returncode == 0, done.stderr
    assert mac.run("rm", "-rf", f"{out}/closed", user="root").returncode == 1
    assert f"removed: {out}" in scan(mac)
    assert unregistered(mac.rig) == set()


def test_what_is_immutable_and_shared_with_another_path_is_left_as_it_is(mac: Mac) -> None:
    build = stranded(mac.rig, "shared")
    out = build.outputs["out"]
    script = f"echo x >{out}/file; ln {out}/file /nix/store/.links/shared; chflags uchg {out}/file"
    assert mac.run("sh", "-ec", script, user="root").returncode == 0
    said = scan(mac)
    assert "left: operation not permitted" in " ".join(said.split())
    assert not os.path.lexists(mac.outside(out))
    shared = mac.outside("/nix/store/.links/shared")
    assert os.stat(shared).st_nlink == 2
    assert mac.run("rm", "/nix/store/.links/shared", user="root").returncode == 1


def test_the_audit_log_is_synced_to_the_disk_itself(mac: Mac) -> None:
    with open(mac.outside(_SYNCS), "w", encoding="ascii"):
        pass
    stranded(mac.rig, "first")
    assert "removed:" in scan(mac)
    before = os.path.getsize(mac.outside(_SYNCS))
    assert before >= 2
    stranded(mac.rig, "second")
    with mac.failing("F_FULLFSYNC", errno.ENOTSUP):
        assert "removed:" in scan(mac)
    assert os.path.getsize(mac.outside(_SYNCS)) == before
    third = stranded(mac.rig, "third")
    with mac.failing("F_FULLFSYNC", errno.EIO):
        assert "removed:" not in scan(mac)
    assert third.outputs["out"] in unregistered(mac.rig)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_where_the_kernel_does_not_list_processes_what_may_be_alive_is_kept(
    mac: Mac, number: int
) -> None:
    build = stranded(mac.rig, "unlisted")
    with mac.failing("proc_listpids", number):
        assert "could not be" in scan(mac)
        assert build.outputs["out"] in unregistered(mac.rig)
    assert f"removed: {build.outputs['out']}" in scan(mac)


def test_a_rename_that_the_system_refuses_leaves_all_as_it_was(mac: Mac) -> None:
    build = stranded(mac.rig, "refused")
    with mac.failing("renameatx_np", errno.EPERM):
        assert "App Management" in scan(mac)
    assert build.outputs["out"] in unregistered(mac.rig)


def test_a_caller_of_whom_the_kernel_does_not_tell_is_not_served(installed: Mac) -> None:
    service.works(installed)
    with installed.failing("LOCAL_PEERCRED", errno.EINVAL):
        build = stranded(installed.rig, "nobody")
        ns.wait_until(lambda: service.status(installed)["problems"], "the refusal")
        assert build.outputs["out"] in unregistered(installed.rig)
    removed(installed, build)
