# SPDX-License-Identifier: MIT
"""An ordinary user reads Nix's database, also where no Nix process happens to have it open."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from real import namespace as ns
from real.rig import Rig, daemon_pid
from real.warden import Report, scan

LEFT = "/nix/store/" + "0" * 32 + "-left-by-root"
"""What is found by the database alone: its owner is that of all that is valid."""


@pytest.fixture
def left(rig: Rig) -> None:
    with open(rig.outside(LEFT), "w", encoding="ascii") as file:
        file.write("half\n")
    # A database that knows nothing is not believed.
    added = ns.run(rig.namespace, ["nix-store", "--add", "/bin/sh"])
    assert added.returncode == 0, added.stderr


@contextmanager
def collecting(rig: Rig) -> Iterator[None]:
    """While one collector follows the other."""
    command = "while :; do NIX_REMOTE=daemon nix-store --gc --max-freed 0; done"
    loop = ns.start(rig.namespace, ["sh", "-c", command], log=f"{rig.base}/logs/collectors")
    try:
        yield
    finally:
        ns.run(rig.namespace, ["kill", "-KILL", str(loop.pid)])


def paths(report: Report) -> set[str]:
    return {one["path"] for one in report["findings"]}


@pytest.mark.usefixtures("left")
def test_beside_a_daemon_without_work_all_is_seen(rig: Rig) -> None:
    report = scan(rig, "--dry-run", user=rig.user)
    assert (LEFT in paths(report), report["notes"]) == (True, [])


@pytest.mark.slow
@pytest.mark.usefixtures("left")
def test_beside_collectors_that_come_and_go_all_is_seen(rig: Rig) -> None:
    with collecting(rig):
        for _ in range(10):
            report = scan(rig, "--dry-run", user=rig.user)
            assert (LEFT in paths(report), report["notes"]) == (True, [])


@pytest.mark.usefixtures("left")
def test_afterwards_no_worker_is_left(rig: Rig) -> None:
    scan(rig, "--dry-run", user=rig.user)
    daemon = daemon_pid(rig)
    ns.wait_until(
        lambda: not [one for one in ns.processes(rig.namespace) if one.parent == daemon],
        "the end of the worker",
    )
    assert os.path.exists(rig.outside(LEFT))
