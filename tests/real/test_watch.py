# SPDX-License-Identifier: MIT
"""The service on real Nix: debris goes with nobody touching anything, what lives is left alone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGKILL, SIGUSR1

import pytest

from real import namespace as ns
from real.builds import Interrupt, let_finish, start_build, strand
from real.recipes import Recipe
from real.rig import Rig, continue_daemon, stop_daemon, unregistered, valid_paths
from real.story import assert_audit_log_tells, assert_builds_exactly_its_own_files
from real.warden import helper, typed
from real.watching import Service, configure, service, start_service

MIN_AGE = 2.0
SOON = 60.0
"""Enough for a busy machine, and far less than the next sweep is away."""


@contextmanager
def serving(rig: Rig, user: str, *lines: str) -> Iterator[Service]:
    """The service as root in one process, or as an ordinary user with the helper."""
    if user == "root":
        with service(rig, *lines) as one:
            yield one
        return
    with helper(rig, user), service(rig, *lines, user=user) as one:
        yield one


def wait_until_gone(rig: Rig, paths: set[str], seconds: float) -> float:
    began = time.monotonic()
    ns.wait_until(
        lambda: not any(os.path.lexists(rig.outside(path)) for path in paths),
        f"{paths} to be removed",
        seconds,
    )
    return time.monotonic() - began


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("how", Interrupt, ids=lambda how: how.value)
def test_debris_is_gone_before_the_user_retries(rig: Rig, user: str, how: Interrupt) -> None:
    with serving(rig, user):
        build = start_build(rig, Recipe("job", outputs=("out", "dev")))
        live = start_build(rig, Recipe("live"))
        strand(rig, build, how)
        if how is Interrupt.SIGKILL_WORKER:
            time.sleep(MIN_AGE)
            assert unregistered(rig) >= build.entries, "its builder lives on"
            ns.kill(rig.namespace, SIGKILL, build.builder)
        wait_until_gone(rig, build.entries, SOON)
        assert_builds_exactly_its_own_files(rig, build)
        let_finish(rig, live.recipe)
        assert live.client.process.wait(20) == 0, ns.read(live.log)
    assert_audit_log_tells(rig, build)
    assert unregistered(rig) == set()


def test_debris_that_lay_there_before_is_removed_at_the_start(rig: Rig) -> None:
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    with service(rig):
        wait_until_gone(rig, build.entries, SOON)


def test_a_service_that_only_reports_removes_nothing(rig: Rig) -> None:
    with service(rig, 'mode = "report"') as watcher:
        build = start_build(rig, Recipe("job"))
        strand(rig, build)
        ns.wait_until(lambda: watcher.status["found"].get("output") == 1, "the find")
        time.sleep(MIN_AGE)
        assert unregistered(rig) == build.entries


def test_a_daemon_that_does_not_answer_removes_nothing_until_it_does(rig: Rig) -> None:
    with service(rig) as watcher:
        build = start_build(rig, Recipe("job"))
        stop_daemon(rig)
        ns.kill(rig.namespace, SIGKILL, build.worker, build.builder, build.client.pid)
        ns.wait_until(lambda: "nix" in watcher.status["problems"], "the problem", 60)
        assert unregistered(rig) == build.entries
        continue_daemon(rig)
        wait_until_gone(rig, build.entries, 60)
        ns.wait_until(lambda: watcher.status["problems"] == {}, "the end of the problem")


def test_a_sweep_can_be_asked_for_at_any_time(rig: Rig) -> None:
    with service(rig) as watcher:
        before = watcher.status["sweeps"]
        ns.kill(rig.namespace, SIGUSR1, watcher.child.pid)
        ns.wait_until(lambda: watcher.status["sweeps"] == before + 1, "a sweep")


def test_a_reload_takes_what_is_right_and_keeps_what_was_when_it_is_wrong(rig: Rig) -> None:
    with service(rig, 'mode = "report"') as watcher:
        build = start_build(rig, Recipe("job"))
        strand(rig, build)
        configure(rig, 'mood = "repair"')
        ns.kill(rig.namespace, SIGHUP, watcher.child.pid)
        ns.wait_until(lambda: "configuration" in watcher.status["problems"], "the complaint")
        assert "did you mean 'mode'" in watcher.status["problems"]["configuration"]
        assert watcher.status["mode"] == "report"
        configure(rig)
        ns.kill(rig.namespace, SIGHUP, watcher.child.pid)
        wait_until_gone(rig, build.entries, SOON)
        ns.wait_until(lambda: watcher.status["problems"] == {}, "the end of the complaint")


def test_a_second_service_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    with service(rig) as watcher:
        second = start_service(rig)
        assert second.child.process.wait(10) == 4
        assert f"already watches, as process {watcher.child.pid}" in second.said
        assert watcher.child.process.poll() is None


def test_a_service_that_was_killed_is_followed_by_one_that_goes_on(rig: Rig) -> None:
    first = start_service(rig)
    build = start_build(rig, Recipe("job"))
    ns.kill(rig.namespace, SIGKILL, first.child.pid)
    strand(rig, build)
    with service(rig):
        wait_until_gone(rig, build.entries, SOON)


def test_too_much_debris_blows_the_fuse(rig: Rig) -> None:
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    with service(rig, "max-removals = 0") as watcher:
        ns.wait_until(lambda: "fuse" in watcher.status["problems"], "the fuse")
        time.sleep(MIN_AGE)
        assert unregistered(rig) == build.entries
        configure(rig, "max-removals = 2")
        ns.kill(rig.namespace, SIGHUP, watcher.child.pid)
        wait_until_gone(rig, build.entries, SOON)


def test_without_a_helper_it_says_how_to_set_it_up(rig: Rig) -> None:
    refused = start_service(rig, user="nobody")
    assert refused.child.process.wait(10) == 4
    assert typed(rig, "sudo storewarden setup") in refused.said


def test_a_helper_that_has_gone_is_told_and_waited_for(rig: Rig) -> None:
    with helper(rig, "nobody"):
        watcher = start_service(rig, user="nobody")
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    ns.wait_until(lambda: "helper" in watcher.status["problems"], "the complaint")
    ns.wait_until(lambda: watcher.status["stuck_count"] == len(build.entries), "all to be stuck")
    assert valid_paths(rig).isdisjoint(build.entries)
    with helper(rig, "nobody"):
        wait_until_gone(rig, build.entries, 40)
        ns.wait_until(lambda: watcher.status["problems"] == {}, "the end of the complaint")
    ns.kill(rig.namespace, SIGKILL, watcher.child.pid)


def test_what_the_helper_keeps_is_asked_for_ever_more_rarely(rig: Rig) -> None:
    """Though it takes and lets go of the very locks that wake the service."""
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    roots = "/nix/var/nix/temproots/99999"
    with open(rig.outside(roots), "wb") as file:
        file.write(build.drv.encode() + b"\0")
    os.chmod(rig.outside(roots), 0o600)  # as Nix's own are, so that only the helper can read it
    with ns.flocked(rig.namespace, roots), helper(rig, "nobody"):
        watcher = start_service(rig, user="nobody")
        ns.wait_until(lambda: watcher.status["refused"] >= len(build.entries), "the first refusals")
        before = watcher.status["refused"]
        time.sleep(6)
        # After 0.25, 0.5, 1, 2 and 4 s; each would wake itself several times a second.
        assert watcher.status["refused"] - before <= 6 * len(build.entries)
        assert unregistered(rig) == build.entries
    ns.kill(rig.namespace, SIGKILL, watcher.child.pid)
