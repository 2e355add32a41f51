# SPDX-License-Identifier: MIT
"""What must be true at each turn of the main story: debris is named, removed, on record, healed."""

import os

from real.builds import Build, retry
from real.namespace import read
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import Report, finding, records, scan, statuses, warden
from storewarden.explain.buildlog import BuildLog
from storewarden.store.paths import StoreDir


def assert_wedged_named_removed_and_built_again(rig: Rig, build: Build, user: str) -> None:
    """The whole of it: the next build fails, that user is told why, root has it removed."""
    wedged = retry(rig, build.recipe, not_uid=build.uid)
    assert wedged.returncode != 0
    assert "Permission denied" in wedged.stderr
    assert_its_log_tells(wedged.stderr, build)

    before = picture(rig.store)
    report = scan(rig, "--dry-run", user=user)
    assert picture(rig.store) == before, "a dry run changed the store"
    assert {one["path"] for one in report["findings"]} == build.entries
    assert_names_it(rig, report, build)

    removed = scan(rig, "--yes")
    assert statuses(removed) == dict.fromkeys(build.entries, "removed")
    assert unregistered(rig) == set()

    assert_builds_exactly_its_own_files(rig, build)
    assert_audit_log_tells(rig, build)


def assert_an_orphaned_builder_is_left_alone(rig: Rig, build: Build) -> None:
    """No lock is held by anyone: only the process itself tells that its output is wanted."""
    report = scan(rig, "--yes")
    output = build.outputs["out"]
    found = finding(report, output)
    assert found["verdict"] == "keep"
    assert any("process" in reason for reason in found["reasons"]), found["reasons"]
    assert statuses(report).get(output) in {None, "kept"}
    assert unregistered(rig) == build.entries


def assert_names_it(rig: Rig, report: Report, build: Build) -> None:
    for output, path in build.outputs.items():
        found = finding(report, path)
        assert found["kind"] == "output"
        assert found["owner"]["uid"] == build.uid
        assert found["owner"]["name"] == rig.build_users[build.uid]
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


def assert_its_log_tells(log: str, build: Build) -> None:
    """What the wedged build printed is known for what it is, and which output it is about."""
    reader = BuildLog(StoreDir("/nix/store"))
    reader.feed(log.encode())
    told = {seen.failure.name: seen.paths for seen in reader.reading().seen}
    assert "output-denied" in told, log
    assert set(told["output-denied"]) <= set(build.outputs.values())


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
