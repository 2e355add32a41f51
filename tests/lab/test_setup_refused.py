# SPDX-License-Identifier: MIT
"""Set up on a machine where something is in the way, or that is cut off in the middle."""

import os
from signal import SIGKILL

from lab.machine import control
from lab.service import (
    HELPER,
    SOCKET,
    WATCHER,
    run,
    setup,
    setup_again,
)
from real import namespace as ns
from real.rig import Rig
from storewarden.setup.run import ASK


def test_only_one_sets_up_at_a_time(rig: Rig, python: str) -> None:
    with ns.flocked(rig.namespace, "/run/storewarden-setup.lock"):
        done = run(rig, [python, "-m", "storewarden", "setup"])
    assert done.returncode == 3
    assert "another setup is at work" in done.stderr
    assert not os.path.exists(f"{rig.root}/etc/storewarden")


def test_a_place_that_a_user_has_prepared_is_not_written_to(rig: Rig, python: str) -> None:
    place = f"{rig.root}/opt/storewarden"
    os.mkdir(place)
    try:
        os.chown(place, 1500, -1)
        done = run(rig, [python, "-m", "storewarden", "setup"])
        assert done.returncode == 3
        assert "nothing is written below /opt/storewarden: others than root" in done.stderr
        assert os.listdir(place) == []
        assert not os.path.exists(f"{rig.root}/etc/storewarden")
    finally:
        os.rmdir(place)


def test_nobody_but_the_watchers_user_reaches_the_helper(rig: Rig, python: str) -> None:
    setup(rig, python)
    ask = "import socket; socket.socket(socket.AF_UNIX).connect('/run/storewarden/helper.sock')"
    for user in (rig.user, "bob"):
        done = run(rig, ["/usr/bin/python3", "-c", ask], user)
        assert "PermissionError" in done.stderr
    status = run(rig, ["cat", "/run/storewarden/watch/status.json"], "bob")
    assert '"mode": "repair"' in status.stdout, status.stderr


def test_killed_in_the_middle_the_next_run_completes_it(rig: Rig, python: str) -> None:
    log = f"{rig.base}/logs/setup"
    words = ["env", "-u", "PYTHONPATH", python, "-m", "storewarden", "setup"]
    # Between files: tests/setup/test_run_refused.py.
    for step in ("run     systemd-sysusers", "run     systemctl e", "run     systemctl start"):
        child = ns.start(rig.namespace, words, log=log)
        ns.wait_until(lambda step=step: step in ns.read(log), step)  # type: ignore[misc]
        ns.kill(rig.namespace, SIGKILL, child.pid)
        child.process.wait(20)
        assert "the watcher runs" not in ns.read(log)
        setup(rig, python)
        assert setup_again(rig).startswith("nothing to change")
        assert run(rig, [python, "-m", "storewarden", "setup", "--uninstall"]).returncode == 0


def test_a_helper_that_cannot_work_says_so_each_time_and_stays_to_be_asked(
    rig: Rig, python: str
) -> None:
    setup(rig, python)
    control(rig, "stop", WATCHER, HELPER)
    assert ns.run(rig.namespace, ["mount", "-t", "tmpfs", "tmpfs", "/nix/store"]).returncode == 0
    for _ in range(12):
        assert "the helper cannot work: " in ask_helper(rig)
    assert control(rig, "is-active", SOCKET) == "active\n"
    assert ns.run(rig.namespace, ["umount", "/nix/store"]).returncode == 0
    assert ask_helper(rig) == "vanished\n"


def ask_helper(rig: Rig) -> str:
    """What the helper answers to the watcher's user."""
    [code] = os.listdir(f"{rig.root}/opt/storewarden")
    return run(
        rig,
        [f"/opt/storewarden/{code}/bin/python", "-I", "-c", ASK, "/run/storewarden/helper.sock"],
        "storewarden",
    ).stdout
