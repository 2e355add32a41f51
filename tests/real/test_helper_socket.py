# SPDX-License-Identifier: MIT
"""An ordinary user repairs a real store through the root helper, and can do nothing else by it."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from real import namespace as ns
from real.builds import start_build, stranded
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import AT_ONCE, helper, records, scan, socket_path, statuses, warden

SPEAK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as helper:
    helper.settimeout(20)
    helper.connect(sys.argv[1])
    helper.sendall(sys.argv[2].encode() + b"\\n")
    print(helper.makefile().read())
"""


def test_an_ordinary_user_has_debris_removed_through_the_helper(rig: Rig) -> None:
    build = stranded(rig, "debris")
    with helper(rig, "nobody"):
        report = scan(rig, "--yes", "--socket", socket_path(rig), user="nobody")
    assert statuses(report) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()
    assert {one["name"] for one in records(rig)} == set(map(os.path.basename, build.entries))


def test_repairs_at_the_same_time_do_not_disturb_each_other(rig: Rig) -> None:
    builds = [stranded(rig, f"debris-{number}") for number in range(4)]
    words = ("scan", "--yes", *AT_ONCE, "--socket", socket_path(rig))
    with helper(rig, "nobody"), ThreadPoolExecutor() as pool:
        users = ["root", "nobody", "root", "nobody"]
        ended = list(pool.map(lambda user: warden(rig, *words, user=user), users))
    assert [done.returncode for done in ended] == [0] * len(users), ended
    assert unregistered(rig) == set()
    removed = [one["name"] for one in records(rig) if one["action"] == "result"]
    assert sorted(removed) == sorted(os.path.basename(p) for b in builds for p in b.entries)


# With one user the socket is that user's own; with several only the helper itself tells them apart.
@pytest.mark.parametrize("allowed", [("nobody",), ("nobody", "bin")])
def test_a_user_whom_the_helper_does_not_know_is_refused(
    rig: Rig, allowed: tuple[str, ...]
) -> None:
    stranded(rig, "debris")
    before = picture(rig.store)
    words = ("scan", "--yes", *AT_ONCE, "--socket", socket_path(rig))
    with helper(rig, *allowed):
        done = warden(rig, *words, user="daemon")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "storewarden: error: " in done.stderr
    assert picture(rig.store) == before


def test_without_a_helper_an_ordinary_user_is_told_so(rig: Rig) -> None:
    stranded(rig, "debris")
    before = picture(rig.store)
    done = warden(rig, "scan", "--yes", *AT_ONCE, "--socket", socket_path(rig), user="nobody")
    assert done.returncode == 4, done.stdout + done.stderr
    assert socket_path(rig) in done.stderr
    assert picture(rig.store) == before


def test_a_caller_who_lies_gets_nothing_removed_that_is_wanted(rig: Rig) -> None:
    live = [start_build(rig, Recipe(f"live-{kind}", kind)) for kind in ("ca", "ia", "fod")]
    wanted = {path for build in live for path in build.entries} | valid_paths(rig)
    lies = [
        {"name": os.path.basename(path), "kind": kind, "device": seen.st_dev, "inode": seen.st_ino}
        for path in sorted(wanted)
        for seen in [os.lstat(rig.outside(path))]
        for kind in ("output", "lock")
    ]
    with helper(rig, "nobody"):
        for lie in lies:
            asked = json.dumps({"v": 1, "op": "remove", "entries": [lie]})
            words = ["python3", "-c", SPEAK, socket_path(rig), asked]
            said = ns.run(rig.namespace, words, user="nobody")
            assert '"status":"kept"' in said.stdout, said
    assert all(os.path.lexists(rig.outside(path)) for path in wanted)
    assert all(build.client.process.poll() is None for build in live)
