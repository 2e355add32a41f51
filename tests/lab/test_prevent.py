# SPDX-License-Identifier: MIT
"""Nix's hook as setup puts it there: what is in the way of a build goes before the build begins.

On Linux Nix runs it for sandboxed builds alone, so debris of an unsandboxed build is met by the
same build in a sandbox. What it does for others, and all that could go wrong with it, is tried in
the private rig's tests, which are run here as well.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab import jobs
from lab.machine import Machine, control
from lab.service import WATCHER, audit_log, delivered, names, run, setup
from real import namespace as ns
from real.builds import Interrupt, interrupt, let_finish, retry, start_build, stranded
from real.recipes import Recipe, arguments
from real.rig import Rig, unregistered
from real.test_before_build import (
    test_a_builder_that_outlived_its_worker_is_left_alone,
    test_a_hook_that_was_there_before_runs_after_it_and_has_its_say,
    test_it_fails_no_build_and_leaves_what_lies_there_when,
    test_neither_wedge_nor_stale_files_come_of_debris_that_goes_before_the_build,
    test_what_a_live_build_makes_is_left_whoever_calls_the_hook,
)
from storewarden import audit_reading
from storewarden.prevention import HOOK, INCLUDE, INCLUDED

SHARED = (
    test_a_builder_that_outlived_its_worker_is_left_alone,
    test_a_hook_that_was_there_before_runs_after_it_and_has_its_say,
    test_it_fails_no_build_and_leaves_what_lies_there_when,
    test_neither_wedge_nor_stale_files_come_of_debris_that_goes_before_the_build,
    test_what_a_live_build_makes_is_left_whoever_calls_the_hook,
)
BUILDS = int(os.environ.get("STOREWARDEN_LAB_BUILDS", "20"))
ROUNDS = 3
CONF = "/etc/nix/nix.conf"


@pytest.fixture
def prevented(machine: Machine) -> Iterator[Rig]:
    """While Nix runs the hook, and no service removes anything."""
    before = ns.read(f"{machine.rig.root}{CONF}")
    with delivered(machine) as python:
        setup(machine.rig, python, "--prevent")
        control(machine.rig, "stop", WATCHER)
        yield machine.rig
    assert ns.read(f"{machine.rig.root}{CONF}") == before


def sandboxed(recipe: Recipe) -> Recipe:
    """The same derivation, to be built in a sandbox."""
    return replace(recipe, sandbox=True)


def intents(rig: Rig) -> list[dict[str, object]]:
    return [
        dict(one) for one in audit_reading.read_records(audit_log(rig)) if one["action"] == "intent"
    ]


def test_debris_of_an_unsandboxed_build_is_gone_when_the_sandboxed_builder_begins(
    prevented: Rig,
) -> None:
    dead = stranded(prevented, "job")
    build = start_build(prevented, sandboxed(dead.recipe))
    assert dead.outputs["out"] not in unregistered(prevented)
    let_finish(prevented, build.recipe)
    assert build.client.process.wait(60) == 0, ns.read(build.log)
    [intent] = intents(prevented)
    assert intent["name"] == os.path.basename(dead.outputs["out"])
    assert (intent["deriver"], intent["output"]) == (os.path.basename(dead.drv), "out")
    found = audit_reading.verify(audit_log(prevented))
    assert not found.problem
    assert not found.open_intents


def test_without_the_hook_it_lies_there_as_before(rig: Rig) -> None:
    dead = stranded(rig, "job")
    assert retry(rig, sandboxed(dead.recipe)).returncode == 0
    assert dead.outputs["out"] in unregistered(rig)


@pytest.mark.parametrize(
    "how", [Interrupt.SIGINT_CLIENT, Interrupt.SIGKILL_WORKER], ids=lambda how: how.value
)
def test_a_build_that_is_interrupted_again_and_again_begins_clean_each_time(
    prevented: Rig, how: Interrupt
) -> None:
    dead = stranded(prevented, "job")
    for _ in range(ROUNDS):
        build = start_build(prevented, sandboxed(dead.recipe))
        assert dead.outputs["out"] not in unregistered(prevented)
        interrupt(prevented, build, how)
        if how is Interrupt.SIGKILL_WORKER:
            ns.run(prevented.namespace, ["pkill", "-KILL", "-g", "nixbld"])
    assert retry(prevented, sandboxed(dead.recipe)).returncode == 0


def test_once_it_is_taken_back_builds_go_on_also_of_a_nix_that_began_before(
    prevented: Rig,
) -> None:
    live = start_build(prevented, sandboxed(Recipe("live")))
    said = run(prevented, ["storewarden", "setup", "--uninstall"])
    assert said.returncode == 0, said.stderr
    assert f"keep    {HOOK}: a Nix that began before may still run it" in said.stdout
    assert not os.path.exists(f"{prevented.root}{INCLUDED}")
    assert INCLUDE not in ns.read(f"{prevented.root}{CONF}")
    let_finish(prevented, live.recipe)
    assert live.client.process.wait(60) == 0, ns.read(live.log)
    assert retry(prevented, sandboxed(Recipe("next"))).returncode == 0


def test_whoever_removes_its_directory_turns_it_off_and_fails_no_build(prevented: Rig) -> None:
    away = f"{prevented.root}/root/storewarden-away"
    os.rename(f"{prevented.root}/etc/storewarden", away)
    try:
        control(prevented, "restart", "nix-daemon.service")
        assert retry(prevented, sandboxed(Recipe("job"))).returncode == 0
    finally:
        os.rename(away, f"{prevented.root}/etc/storewarden")


def test_without_its_code_the_hook_says_so_and_the_build_goes_on(prevented: Rig) -> None:
    away = f"{prevented.root}/root/storewarden-away"
    os.rename(f"{prevented.root}/opt/storewarden", away)
    try:
        assert retry(prevented, sandboxed(Recipe("job"))).returncode == 0
        told = ns.run(prevented.namespace, ["journalctl", "-u", "nix-daemon", "--no-pager"])
        assert "is gone; no matter, nothing was looked for" in told.stdout
    finally:
        os.rename(away, f"{prevented.root}/opt/storewarden")


def test_what_it_was_before_comes_back_with_uninstall(machine: Machine, python: str) -> None:
    before = names(machine.rig)
    setup(machine.rig, python, "--prevent")
    assert os.path.exists(f"{machine.rig.root}{HOOK}")
    taken = run(machine.rig, ["storewarden", "setup", "--uninstall"])
    assert taken.returncode == 0, taken.stderr
    left = {path for path in names(machine.rig) ^ before if "/per-user/" not in path}
    assert left == {"/var/log/storewarden", "/var/log/storewarden/audit.jsonl"}


def built(rig: Rig, tag: str) -> float:
    """Seconds that so many small sandboxed builds take, one after the other."""
    many = [f"small-{number}" for number in range(BUILDS)]
    options: Sequence[str] = arguments(rig, sandboxed(Recipe("x")))
    sandbox = options[options.index("--option") :]
    words = jobs.build_words(rig, many, 'echo small > "$out"', *sandbox)
    words = [*words, "--argstr", "tag", tag, "--max-jobs", "1"]
    began = time.monotonic()
    done = ns.run(rig.namespace, words, user="trusty", seconds=600)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def test_what_it_costs_builds_that_find_nothing_in_their_way(
    prevented: Rig, record_property: Callable[[str, object], None]
) -> None:
    """Turn about, so that both meet the same machine."""
    setting = Path(f"{prevented.root}{INCLUDED}")
    text, seen = setting.read_text(encoding="ascii"), dict[bool, list[float]]()
    for number in range(2 * ROUNDS):
        on = number % 2 == 0
        setting.write_text(text if on else "", encoding="ascii")
        control(prevented, "reset-failed", "nix-daemon.service")  # systemd counts the starts
        control(prevented, "restart", "nix-daemon.service")
        seen.setdefault(on, []).append(built(prevented, f"round-{number}"))
    setting.write_text(text, encoding="ascii")
    with_it, without = (statistics.median(seen[on]) for on in (True, False))
    each = (with_it - without) / BUILDS * 1000
    record_property(
        "tally",
        f"hook: {BUILDS} small sandboxed builds in {with_it:.2f} s with it, {without:.2f} s without"
        f" (ratio {with_it / without:.2f}, {each:.0f} ms a build)",
    )
