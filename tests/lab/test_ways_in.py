# SPDX-License-Identifier: MIT
"""However it was installed: its commands run as printed, it is upgraded, and goes whole."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGKILL

import pytest

from lab.machine import Machine, control
from lab.service import MIN_AGE, SOON, WATCHER, accounts, journal, names
from lab.ways import Way, must, nix, sources, typed, ways
from real import namespace as ns
from real.builds import stranded
from real.rig import Rig, unregistered

SUDOERS = "/etc/sudoers.d/alice"


@pytest.fixture
def with_sudo(machine: Machine) -> Iterator[Rig]:
    """While alice may become root with Debian's sudo, which looks in few places for a program."""
    rig, place = machine.rig, f"{machine.rig.root}{SUDOERS}"
    with open(place, "w", encoding="ascii") as file:
        file.write("alice ALL=(ALL:ALL) NOPASSWD: ALL\n")
    os.chmod(place, 0o440)
    with open(f"{rig.root}/etc/sudoers", encoding="utf-8") as file:
        assert re.search(r'^Defaults\s+secure_path="', file.read(), re.MULTILINE)
    shutil.rmtree(f"{rig.root}/var/log/storewarden", ignore_errors=True)
    try:
        yield rig
    finally:
        typed(rig, "storewarden setup --uninstall", "root")
        os.unlink(place)


@contextmanager
def collecting(rig: Rig) -> Iterator[None]:
    """While Nix's collector runs again and again."""
    log = f"{rig.base}/logs/collections"
    loop = "while :; do nix-store --gc && echo collected; done"
    child = ns.start(rig.namespace, ["sh", "-c", loop], log=log)
    try:
        ns.wait_until(lambda: "collected" in ns.read(log), "a collection")
        before = ns.read(log).count("collected")
        yield
        assert ns.read(log).count("collected") > before
    finally:
        ns.kill(rig.namespace, SIGKILL, child.pid)
        child.process.wait(20)


def printed(rig: Rig, command: str, code: int, wanted: str) -> str:
    """The command in what that prints, which ends with that code, that fits `wanted`."""
    done = typed(rig, command)
    assert done.returncode == code, (command, done.stdout, done.stderr)
    [found] = re.findall(
        rf"(?:: |^ +[^:\n]+: +)({wanted})$", done.stdout + done.stderr, re.MULTILINE
    )
    return str(found)


@pytest.mark.timeout(1200)  # four ways, where all are asked for
def test_every_command_runs_as_printed_and_an_upgrade_and_the_way_out_leave_nothing(
    machine: Machine, with_sudo: Rig
) -> None:
    old, new = sources(machine)
    for way in ways(machine.suite):
        story(with_sudo, way, old, new)


def story(rig: Rig, way: Way, old: str, new: str) -> None:
    earlier = way(rig, old)
    before = names(rig), accounts(rig)
    assert "its user reaches the helper" in must(rig, f"sudo {earlier} setup")
    own = way(rig, new)
    with collecting(rig):
        set_up = printed(rig, f"{own} status", 0, r"sudo \S+ setup")
        assert must(rig, set_up).endswith("the watcher runs, and its user reaches the helper\n")
    if way is nix:
        os.unlink(f"{rig.base}/home/alice/result")
        own = "storewarden"
    must(rig, "sudo nix-store --gc && sudo systemctl restart storewarden")
    assert "all is well" in must(rig, f"{own} status"), journal(rig)
    assert control(rig, "show", "--property=NRestarts", "--value", WATCHER) == "0\n"

    must(rig, "sudo systemctl stop storewarden")
    build = stranded(rig, f"of-{way.__name__}")
    time.sleep(MIN_AGE)  # the lock's
    remove = printed(rig, f"{own} scan --dry-run", 0, r"sudo \S+ scan --yes")
    assert all(os.path.lexists(rig.outside(path)) for path in build.entries)
    assert "removed" in must(rig, remove)
    assert unregistered(rig) == set()
    must(rig, printed(rig, f"{own} status", 4, r"sudo journalctl .*"))
    must(rig, printed(rig, f"{own} status", 4, r"sudo systemctl start storewarden"))
    ns.wait_until(lambda: typed(rig, f"{own} status").returncode == 0, journal(rig), SOON)
    must(rig, "sudo /usr/local/bin/storewarden audit verify")
    assert os.path.exists(f"{rig.root}/usr/local/share/man/man1/storewarden.1")
    found = must(rig, "find ~ -user root -not -path '*/old/*'")
    assert found == "", "what alice could not upgrade"

    must(rig, "sudo /usr/local/bin/storewarden setup --uninstall")
    assert {path for path in names(rig) ^ before[0] if "/per-user/" not in path} == {
        "/var/log/storewarden",
        "/var/log/storewarden/audit.jsonl",
    }
    assert accounts(rig) == before[1]
    shutil.rmtree(f"{rig.root}/var/log/storewarden")
