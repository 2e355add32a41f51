# SPDX-License-Identifier: MIT
"""What lies in the way of a build is gone before it begins; whatever goes wrong, the build goes on.

The parent of the hook holds the locks as a worker of Nix does (`real.hooking`); debris, database,
daemon and the builds that follow are real.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from real import namespace as ns
from real.builds import (
    Build,
    Interrupt,
    builder_lives,
    let_finish,
    retry,
    start_build,
    strand,
    stranded,
)
from real.hooking import as_worker, hook_of, orphan_of
from real.recipes import Recipe, arguments
from real.rig import Rig, picture, unregistered
from real.warden import audit_log, records, scan
from storewarden.audit import seal
from storewarden.helper.audit import ROTATE_AT, open_log

LATE = ("what looks before a build was ended (", "did not answer within")
OFTEN = 4
"""Times each; the lab does it 25 times."""
Obstacle = Callable[[Rig, Build], AbstractContextManager[object]]


def built_before(rig: Rig, hook: str, build: Build, tries: int = 20) -> str:
    """What the hook says when the locks are held that its worker holds; it never fails.

    Where it had no time, as on a machine that is very busy, it is tried again.
    """
    began = time.monotonic()
    done = as_worker(rig, hook, build.drv, *build.locks.values())
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert time.monotonic() - began < 10
    if tries and any(sign in done.stderr for sign in LATE):
        return built_before(rig, hook, build, tries - 1)
    return done.stderr


def often() -> int:
    return int(os.environ.get("STOREWARDEN_LAB_HOOK", str(OFTEN)))


def assert_built_of_its_own_files_alone(rig: Rig, path: str) -> None:
    assert os.listdir(rig.outside(path)) == ["result"]


def test_neither_wedge_nor_stale_files_come_of_debris_that_goes_before_the_build(rig: Rig) -> None:
    hook = hook_of(rig)
    for number in range(often()):
        for same_user in (True, False):
            build = stranded(rig, f"job-{number}-{same_user}")
            said = built_before(rig, hook, build)
            name = os.path.basename(build.outputs["out"])
            assert said.endswith(f"storewarden: {name}: removed\n") or not said, said
            assert build.outputs["out"] not in unregistered(rig)
            done = retry(rig, build.recipe, not_uid=None if same_user else build.uid)
            assert done.returncode == 0, done.stderr
            assert_built_of_its_own_files_alone(rig, done.stdout.strip())
    intents = [one for one in records(rig) if one["action"] == "intent"]
    assert len({one["name"] for one in intents}) == 2 * often()
    assert {one["requester"]["via"] for one in intents} == {"pre-build-hook"}
    assert all(f"{one['deriver']}.out.lock" in one["locks"] for one in intents)


def test_without_it_the_same_builds_are_wedged_or_take_stale_files(rig: Rig) -> None:
    wedged, stale = stranded(rig, "wedged"), stranded(rig, "stale")
    assert "Permission denied" in retry(rig, wedged.recipe, not_uid=wedged.uid).stderr
    done = retry(rig, stale.recipe)
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(rig.outside(done.stdout.strip()))) == 2


def test_all_outputs_of_a_derivation_go_and_what_has_the_same_name_stays(rig: Rig) -> None:
    two = start_build(rig, Recipe("two", outputs=("out", "dev")))
    strand(rig, two)
    other = start_build(rig, Recipe("two", kind="ia", outputs=("out", "dev")))
    strand(rig, other)
    built_before(rig, hook_of(rig), two)
    assert unregistered(rig) == {*two.locks.values(), *other.entries}


def test_a_worker_that_has_ended_lends_nothing_and_a_new_build_is_safe(rig: Rig) -> None:
    build = stranded(rig, "job")
    done = as_worker(rig, hook_of(rig), build.drv, *build.locks.values(), how="dies")
    assert done.returncode == 9
    ns.wait_until(
        lambda: not [p for p in ns.processes(rig.namespace) if "hook" in p.command], "the hook"
    )
    # Nobody holds anything by then: removed by its own locks or left, and in either case whole.
    assert build.outputs["out"] not in unregistered(rig) or records(rig) == []


@pytest.mark.parametrize("kind", ["ca", "ia"])
def test_what_a_live_build_makes_is_left_whoever_calls_the_hook(rig: Rig, kind: str) -> None:
    live = start_build(rig, Recipe("live", kind))
    hook, before = hook_of(rig), picture(*map(rig.outside, live.outputs.values()))
    for user in ("root", rig.user):
        done = as_worker(rig, hook, live.drv, user=user)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert unregistered(rig) == live.entries
    now = picture(*map(rig.outside, live.outputs.values()))
    assert [line.split()[:2] for line in now.split(b"\0")] == [
        line.split()[:2] for line in before.split(b"\0")
    ]
    assert live.client.process.poll() is None


def test_a_user_who_calls_it_changes_nothing(rig: Rig) -> None:
    build = stranded(rig, "job")
    before = picture(rig.store)
    done = as_worker(rig, hook_of(rig), build.drv, user=rig.user)
    assert (done.returncode, done.stdout) == (0, "")
    assert "what lies in its way stays" in done.stderr
    assert picture(rig.store) == before


def python_is_gone(rig: Rig, _: Build) -> AbstractContextManager[object]:
    hook_of(rig, python="/nonexistent/python3")
    return nullcontext()


def code_is_gone(rig: Rig, _: Build) -> AbstractContextManager[object]:
    hook_of(rig, code="/nonexistent")
    return nullcontext()


def derivation_is_gone(rig: Rig, build: Build) -> AbstractContextManager[object]:
    stack = ExitStack()
    place = rig.outside(build.drv)
    os.rename(place, f"{rig.base}/scratch/drv")
    stack.callback(os.rename, f"{rig.base}/scratch/drv", place)
    return stack


def log_is_locked(rig: Rig, _: Build) -> AbstractContextManager[object]:
    Path(audit_log(rig)).touch(0o640)
    return ns.flocked(rig.namespace, audit_log(rig))


def database_is_locked(rig: Rig, _: Build) -> AbstractContextManager[object]:
    lock = (
        "import sqlite3, sys; d = sqlite3.connect('/nix/var/nix/db/db.sqlite');"
        "d.execute('PRAGMA locking_mode = exclusive'); d.execute('BEGIN EXCLUSIVE');"
        "print('held', flush=True); sys.stdin.read()"
    )
    return ns.holding(rig.namespace, ["python3", "-c", lock])


def daemon_is_stopped(rig: Rig, _: Build) -> AbstractContextManager[object]:
    # The one that listens began before its workers, whoever started it.
    listening = min(p.pid for p in ns.processes(rig.namespace) if p.command == "nix-daemon")
    stack = ExitStack()
    ns.kill(rig.namespace, SIGSTOP, listening)
    stack.callback(ns.kill, rig.namespace, SIGCONT, listening)
    return stack


def an_orphan_lives(rig: Rig, build: Build) -> AbstractContextManager[object]:
    return orphan_of(rig, build.uid)


def the_collector_works(rig: Rig, _: Build) -> AbstractContextManager[object]:
    return ns.flocked(rig.namespace, "/nix/var/nix/gc.lock")


def settings_say_to_keep_it(rig: Rig, _: Build) -> AbstractContextManager[object]:
    hook_of(rig, settings=['mode = "report"'])
    return nullcontext()


def settings_say_that_it_is_too_young(rig: Rig, _: Build) -> AbstractContextManager[object]:
    hook_of(rig, settings=['min-age = "1h"'])
    return nullcontext()


def settings_are_wrong(rig: Rig, _: Build) -> AbstractContextManager[object]:
    hook_of(rig, settings=["mode = 7"])
    return nullcontext()


def others_can_change_the_settings(rig: Rig, _: Build) -> AbstractContextManager[object]:
    os.chmod(f"{rig.base}/run/config.toml", 0o666)  # noqa: S103 - that is the point
    return nullcontext()


OBSTACLES: list[Obstacle] = [
    python_is_gone,
    code_is_gone,
    derivation_is_gone,
    log_is_locked,
    database_is_locked,
    daemon_is_stopped,
    an_orphan_lives,
    the_collector_works,
    settings_say_to_keep_it,
    settings_say_that_it_is_too_young,
    settings_are_wrong,
    others_can_change_the_settings,
]


@pytest.mark.parametrize("obstacle", OBSTACLES, ids=lambda one: one.__name__.replace("_", " "))
def test_it_fails_no_build_and_leaves_what_lies_there_when(rig: Rig, obstacle: Obstacle) -> None:
    build = stranded(rig, "job")
    hook = hook_of(rig)
    with obstacle(rig, build):
        before = picture(rig.outside(build.outputs["out"]))
        began = time.monotonic()
        said = built_before(rig, hook, build, tries=0)
        took = time.monotonic() - began
        assert picture(rig.outside(build.outputs["out"])) == before
    assert said.startswith("storewarden: "), said
    assert took < 3, f"{took:.1f} s on a machine that may be busy"


def test_a_builder_that_outlived_its_worker_is_left_alone(rig: Rig) -> None:
    build = start_build(rig, Recipe("job"))
    strand(rig, build, Interrupt.SIGKILL_WORKER)
    if not builder_lives(rig, build):
        pytest.skip("from Nix 2.34 on it ends with its worker")
    said = built_before(rig, hook_of(rig), build)
    assert "a process of its owner is alive" in said
    assert unregistered(rig) == build.entries
    assert builder_lives(rig, build)


def test_a_hook_that_was_there_before_runs_after_it_and_has_its_say(rig: Rig) -> None:
    other = f"{rig.base}/run/other"
    Path(other).write_text(
        '#!/bin/sh\necho "extra-sandbox-paths"; echo "$*"; echo; echo heard >&2; exit 3\n'
    )
    os.chmod(other, 0o755)  # noqa: S103 - as Nix runs it
    build = stranded(rig, "job")
    done = as_worker(rig, hook_of(rig, other=other), build.drv, *build.locks.values())
    assert (done.returncode, done.stdout) == (3, f"extra-sandbox-paths\n{build.drv}\n\n")
    assert done.stderr.endswith("heard\n")


def test_a_large_tree_holds_the_build_up_no_longer_than_a_small_one(rig: Rig) -> None:
    build = stranded(rig, "job")
    for number in range(20_000):
        os.mkdir(f"{rig.outside(build.outputs['out'])}/{number}")
    said = built_before(rig, hook_of(rig), build)
    assert "kept" not in said
    assert build.outputs["out"] not in unregistered(rig)


def test_an_audit_log_about_to_be_rotated_holds_no_build_up(rig: Rig) -> None:
    build, hook = stranded(rig, "job"), hook_of(rig)
    scan(rig, "--yes")
    last = {record["action"]: record for record in records(rig)}
    with open_log(audit_log(rig)) as log, open(audit_log(rig), "ab") as file:
        while file.tell() < ROTATE_AT - 10_000:
            for members in (last["intent"], {**last["result"], "op": log.chain.seq + 1}):
                head = {"seq": log.chain.seq + 1, "prev": log.chain.last}
                line = seal({**{k: v for k, v in members.items() if k != "hash"}, **head})
                log.chain.follow(line)
                file.write(line)
    strand(rig, start_build(rig, build.recipe))
    assert "audit log" not in built_before(rig, hook, build)
    assert build.outputs["out"] not in unregistered(rig)


def in_sandbox(rig: Rig, recipe: Recipe) -> list[str]:
    """How root asks for the same derivation in a sandbox, with this machine's own programs."""
    shown = f"/bin /usr /lib /lib64=/usr/lib64 {rig.base}/signals {rig.base}/outside"
    options = {"sandbox": "true", "sandbox-fallback": "false", "sandbox-paths": shown}
    words = [word for name, value in options.items() for word in ("--option", name, value)]
    return ["nix-build", "--no-out-link", *arguments(rig, recipe), *words]


def test_a_worker_of_nix_itself_has_it_removed_before_its_builder_begins(rig: Rig) -> None:
    build = stranded(rig, "job")
    let_finish(rig, build.recipe)
    hook = ("--option", "pre-build-hook", hook_of(rig))
    done = ns.run(rig.namespace, [*in_sandbox(rig, build.recipe), *hook])
    assert done.returncode == 0, done.stderr
    assert build.outputs["out"] not in unregistered(rig)
    [intent] = [one for one in records(rig) if one["action"] == "intent"]
    assert intent["requester"]["via"] == "pre-build-hook"
