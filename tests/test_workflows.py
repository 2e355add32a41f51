# SPDX-License-Identifier: MIT
"""What GitHub is to run: it reads, is pinned, may little, and calls what is there."""

import os
import re
import subprocess
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import pytest
import yaml

from storewarden.cli import parser

CHECKOUT = Path(__file__).parent.parent
WORKFLOWS = sorted(glob(f"{CHECKOUT}/.github/workflows/*.yml"))
FORMS = sorted(glob(f"{CHECKOUT}/.github/ISSUE_TEMPLATE/[!c]*.yml"))
ACTION = f"{CHECKOUT}/action.yml"
USES = re.compile(r"uses: +(\S+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
OWN = re.compile(r"(?:^|[\s\"/])((?:\.ci|\.github|nix/tests|release)/[\w./-]+)")


def read(path: str) -> Any:  # noqa: ANN401 - YAML is what it is
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def steps(path: str) -> Iterator[dict[str, Any]]:
    """Of all its jobs, or of the action."""
    document = read(path)
    for job in [document["runs"]] if path == ACTION else document["jobs"].values():
        yield from job["steps"]


def commands(path: str) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


EVERY = pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=os.path.basename)


@pytest.mark.parametrize("path", WORKFLOWS, ids=os.path.basename)
def test_a_job_may_do_what_it_says_for_as_long_as_it_says(path: str) -> None:
    document = read(path)
    assert document["permissions"] == {}
    for name, job in document["jobs"].items():
        assert "permissions" in job, name
        assert job["timeout-minutes"] <= 60, name


def test_only_a_release_may_write() -> None:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            writes = {what for what, how in job["permissions"].items() if how == "write"}
            assert not writes or os.path.basename(path) == "release.yml", name
            builds = any("make dist" in step.get("run", "") for step in job["steps"])
            assert not (writes and builds), "what builds cannot publish"


def test_each_action_is_pinned_to_one_commit() -> None:
    pins: dict[str, set[tuple[str, str]]] = {}
    for path in (*WORKFLOWS, ACTION):
        text = Path(path).read_text(encoding="utf-8")
        found = USES.findall(text)
        assert len(found) == text.count("uses:"), path
        for action, commit, version in found:
            pins.setdefault(action, set()).add((commit, version))
    assert "actions/checkout" in pins
    assert {action: len(commits) for action, commits in pins.items()} == dict.fromkeys(pins, 1)


@EVERY
def test_no_expression_is_put_into_a_command(path: str) -> None:
    assert commands(path)
    for command in commands(path):
        assert "${{" not in command


@EVERY
def test_a_command_is_one_that_bash_reads(path: str) -> None:
    for command in commands(path):
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


@EVERY
def test_what_a_command_calls_is_there(path: str) -> None:
    for command in commands(path):
        for line in re.findall(r"^make (.+)$", command, re.MULTILINE):
            targets = re.sub(r"\s[A-Z]+=.*", "", line).split()
            subprocess.run(["make", "-n", *targets], cwd=CHECKOUT, stdout=-3, check=True)
        for name in OWN.findall(command):
            assert os.path.isfile(CHECKOUT / name), name
            assert os.access(CHECKOUT / name, os.X_OK) or f"python3 {name}" in command, name


def test_a_target_that_is_not_there_would_be_found() -> None:
    done = subprocess.run(["make", "-n", "no-such"], cwd=CHECKOUT, capture_output=True, check=False)
    assert done.returncode


@pytest.mark.parametrize("path", FORMS, ids=os.path.basename)
def test_a_form_asks_for_commands_that_can_be_typed(path: str) -> None:
    document = read(path)
    texts = [field["attributes"].get("label", "") for field in document["body"]]
    assert "`storewarden doctor --json`" in texts
    for words in re.findall(r"`storewarden ([^`]+)`", " ".join(texts)):
        parser().parse_args(words.split())
