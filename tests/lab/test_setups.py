# SPDX-License-Identifier: MIT
"""Nix set up in other ways: users allocated at need, and stores of a single user."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from signal import SIGINT

import pytest

from json_documents import checked
from lab import jobs
from lab.machine import Machine, control, start_nix
from real import namespace as ns
from real.builds import retry, stranded
from real.rig import Rig, picture, unregistered
from real.story import assert_audit_log_tells
from real.warden import AT_ONCE, command, finding, scan, statuses

ALLOCATED = "auto-allocate-uids = true\nextra-experimental-features = auto-allocate-uids\n"
SCRIPT = f"{jobs.WITNESS}sleep 600\n"


@contextmanager
def configured(rig: Rig, more: str) -> Iterator[None]:
    """While the daemon has these lines in its configuration as well."""
    place = f"{rig.root}/etc/nix/nix.conf"
    before = ns.read(place)
    try:
        write(place, before + more)
        control(rig, "restart", "nix-daemon.service")
        start_nix(rig)
        yield
    finally:
        write(place, before)
        control(rig, "restart", "nix-daemon.service")


def test_debris_of_a_user_allocated_for_the_build_is_found_and_removed(machine: Machine) -> None:
    rig = machine.rig
    if rig.nix_version < (2, 12):
        pytest.skip("this Nix cannot allocate users yet")
    with configured(rig, ALLOCATED):
        build = stranded(rig, "allocated")
        assert build.uid not in rig.build_users
        with ns.flocked(rig.namespace, "/nix/var/nix/userpool2/slot-0"):
            wedged = retry(rig, build.recipe)
            assert wedged.returncode != 0
            assert "Permission denied" in wedged.stderr
        found = finding(scan(rig, "--dry-run", user=rig.user), build.outputs["out"])
        assert (found["kind"], found["owner"]["uid"]) == ("output", build.uid)
        assert (found["deriver"], found["output"]) == (build.drv, "out")
        assert statuses(scan(rig, "--yes")) == dict.fromkeys(build.entries, "removed")
        assert unregistered(rig) == set()
        with ns.flocked(rig.namespace, "/nix/var/nix/userpool2/slot-0"):
            assert retry(rig, build.recipe).returncode == 0
        assert_audit_log_tells(rig, build)


def test_a_store_without_build_users_is_reported_with_the_reason_and_left_alone(
    machine: Machine,
) -> None:
    rig = machine.rig
    single = ["--option", "build-users-group", "", "--store", "local"]
    out = interrupted(rig, [*jobs.build_words(rig, ["single"], SCRIPT), *single], "root")
    assert_reported_and_left_alone(rig, out, ["--build-group", "none"], "root", rig.store)


def test_an_ordinary_users_own_store_is_reported_with_the_reason_and_left_alone(rig: Rig) -> None:
    home = f"{rig.base}/scratch/own"
    places = {"STORE": f"{home}/store", "STATE": f"{home}/state", "LOG": f"{home}/log"}
    own = ["env", "NIX_REMOTE=local", *(f"NIX_{k}_DIR={v}" for k, v in places.items())]
    out = interrupted(rig, [*own, *jobs.build_words(rig, ["own"], SCRIPT)], rig.user)
    assert out.startswith(f"{home}/store/")
    words = ["--store-dir", places["STORE"], "--state-dir", places["STATE"]]
    assert_reported_and_left_alone(rig, out, words, rig.user, f"{home}/store")


def interrupted(rig: Rig, words: Sequence[str], user: str) -> str:
    """Start that build, interrupt it, and give the path that it was writing to."""
    log = f"{rig.base}/logs/single"
    client = ns.start(rig.namespace, words, log=log, user=user)
    name = "single" if user == "root" else "own"
    [builder] = jobs.wait_for_builders(rig, [name], "single", client)
    ns.kill(rig.namespace, SIGINT, client.pid)
    assert client.process.wait(20) != 0
    return builder.out


def assert_reported_and_left_alone(
    rig: Rig, out: str, words: Sequence[str], user: str, store: str
) -> None:
    before = picture(store)
    done = run_scan(rig, words, user)
    report = checked(done.stdout, "scan")
    found = finding(report, out)
    assert found["verdict"] == "keep"
    assert found["reasons"]
    assert statuses(report).get(out) in {None, "kept"}
    after = picture(store)
    assert {line for line in before.split(b"\0") if out.encode() in line} <= {*after.split(b"\0")}


def run_scan(rig: Rig, words: Sequence[str], user: str) -> subprocess.CompletedProcess[str]:
    whole = [*command(rig, "scan", "--yes", "--json", *AT_ONCE), *words]
    if user != "root":
        whole += ["--audit-log", f"{rig.base}/scratch/own.audit"]
    done = ns.run(rig.namespace, whole, user=user)
    assert done.returncode in {0, 5}, done.stdout + done.stderr
    return done


def write(place: str, text: str) -> None:
    with open(place, "w", encoding="ascii") as file:
        file.write(text)
