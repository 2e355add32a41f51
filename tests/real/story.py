# SPDX-License-Identifier: MIT
"""What must be true at each turn of the main story: debris is named, removed, on record, healed."""

import os

from real.builds import Build, retry
from real.namespace import read
from real.rig import Rig, valid_paths
from real.warden import Report, finding, records, warden
from storewarden.explain.buildlog import BuildLog
from storewarden.store.paths import StoreDir


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
