# SPDX-License-Identifier: MIT
"""The reason why storewarden exists: an interrupted build, the wedge it leaves, and its repair."""

import os

import pytest

from real.builds import (
    Build,
    Interrupt,
    Recipe,
    builder_lives,
    let_finish,
    retry,
    start_build,
    strand,
)
from real.furniture import BUILD_USERS
from real.namespace import read, wait_until
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import AT_ONCE, Report, finding, records, scan, statuses, warden

CASES = [
    (Interrupt.SIGINT_CLIENT, ("out",)),
    (Interrupt.SIGINT_CLIENT, ("out", "dev")),
    (Interrupt.SIGKILL_CLIENT, ("out",)),
    (Interrupt.BUILDER_FAILS, ("out",)),
]


@pytest.mark.parametrize(("how", "outputs"), CASES)
def test_what_an_interrupted_build_stranded_is_named_removed_and_builds_again(
    rig: Rig, how: Interrupt, outputs: tuple[str, ...]
) -> None:
    build = start_build(rig, Recipe("job", outputs=outputs))
    strand(rig, build, how)
    wedged = retry(rig, build.recipe, not_uid=build.uid)
    assert wedged.returncode != 0
    assert "Permission denied" in wedged.stderr

    before = picture(rig.store)
    report = scan(rig, "--dry-run", user="nobody")
    assert picture(rig.store) == before, "a dry run changed the store"
    assert {one["path"] for one in report["findings"]} == build.entries
    assert_names_it(report, build)

    removed = scan(rig, "--yes")
    assert statuses(removed) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()

    assert_builds_exactly_its_own_files(rig, build)
    assert_audit_log_tells(rig, build)


def test_a_builder_that_outlived_its_worker_is_left_alone_until_it_ends(rig: Rig) -> None:
    build = start_build(rig, Recipe("orphan"))
    strand(rig, build, Interrupt.SIGKILL_WORKER)
    if builder_lives(rig, build):
        # No lock is held by anyone now: only the process itself tells that it is alive.
        assert rig.nix_version < (2, 34)
        report = scan(rig, "--yes")
        output = finding(report, build.outputs["out"])
        assert output["verdict"] == "keep"
        assert any("process" in reason for reason in output["reasons"]), output["reasons"]
        assert statuses(report).get(build.outputs["out"]) in {None, "kept"}
        assert unregistered(rig) == build.entries
        let_finish(rig, build.recipe)
        wait_until(lambda: not builder_lives(rig, build), "the end of the builder")
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    assert_builds_exactly_its_own_files(rig, build)


def test_debris_younger_than_the_age_asked_for_is_kept(rig: Rig) -> None:
    build = start_build(rig, Recipe("young"))
    strand(rig, build)
    done = warden(rig, "scan", "--yes", "--min-age", "1h")
    assert done.returncode in {0, 5}, done.stderr
    assert unregistered(rig) == build.entries
    assert warden(rig, "scan", "--yes", *AT_ONCE).returncode == 0
    assert unregistered(rig) == set()


def assert_names_it(report: Report, build: Build) -> None:
    for output, path in build.outputs.items():
        found = finding(report, path)
        assert found["kind"] == "output"
        assert found["owner"]["uid"] == build.uid
        assert found["owner"]["name"] == BUILD_USERS[build.uid]
        assert (found["deriver"], found["output"]) == (build.drv, output)
        assert 0 <= found["ageSeconds"] < 60
        assert found["verdict"] in {"candidate", "removable"}, found["reasons"]
    for output, path in build.locks.items():
        found = finding(report, path)
        assert found["kind"] == "lock"
        assert found["owner"]["name"] == "root"
        assert (found["deriver"], found["output"]) == (build.drv, output)
        assert 0 <= found["ageSeconds"] < 60
        assert found["verdict"] in {"candidate", "removable"}, found["reasons"]


def assert_builds_exactly_its_own_files(rig: Rig, build: Build) -> None:
    before = valid_paths(rig)
    again = retry(rig, build.recipe, not_uid=build.uid)
    assert again.returncode == 0, again.stderr
    made = valid_paths(rig) - before
    assert len(made) == len(build.outputs)
    for path in made:
        assert os.listdir(rig.outside(path)) == ["result"]
        assert read(rig.outside(f"{path}/result")) == "whole\n"


def assert_audit_log_tells(rig: Rig, build: Build) -> None:
    log = records(rig)
    for path in build.entries:
        [intent, result] = [one for one in log if one["name"] == os.path.basename(path)]
        assert (intent["action"], result["action"]) == ("intent", "result")
        assert (result["op"], result["status"]) == (intent["seq"], "removed")
    shown = warden(rig, "audit", "show")
    assert shown.returncode == 0, shown.stderr
    assert all(os.path.basename(path) in shown.stdout for path in build.entries)
