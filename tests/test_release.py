# SPDX-License-Identifier: MIT
"""What a tag must have to become a release, and what it is made with."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from release.tag import ROOT, against, new_in
from storewarden import __version__

CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- later\n\n## 1.2 - 2027-01-01\n\n- new\n\n## 1.1\n\n- old\n"
)
PROJECT = {
    "version": "1.2",
    "urls": {"Homepage": "https://example.org", "Changelog": "https://example.org/changes"},
    "maintainers": [{"name": "Somebody", "email": "somebody@example.org"}],
}


def test_a_tag_that_is_the_version_of_a_described_project_may() -> None:
    assert against("v1.2", PROJECT, CHANGELOG) == []
    assert new_in("1.2", CHANGELOG) == "- new"


@pytest.mark.parametrize(
    ("tag", "change", "reason"),
    [
        ("v1.3", {}, "the tag is v1.3, and the version 1.2"),
        ("1.2", {}, "the tag is 1.2"),
        ("v1.20", {"version": "1.20"}, "CHANGELOG.md has no part 1.20"),
        ("v1.2", {"urls": {}}, "no addresses"),
        ("v1.2", {"maintainers": [{"name": "Nobody"}]}, "no maintainer to write to"),
    ],
)
def test_else_it_says_why_not(tag: str, change: dict[str, Any], reason: str) -> None:
    [said] = against(tag, {**PROJECT, **change}, CHANGELOG)
    assert reason in said


def test_of_what_is_no_release_nothing_is_printed_as_new() -> None:
    command = [sys.executable, f"{ROOT}/release/tag.py", f"v{__version__}.not"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the tag is v{__version__}.not, and the version {__version__}\n" in done.stderr


def test_what_the_guide_has_a_publisher_write_is_all_of_it() -> None:
    guide = Path(ROOT, "CONTRIBUTING.md").read_text(encoding="utf-8")
    [written] = re.findall(r"^```toml\n(\[project\.urls\].+?)```$", guide, re.MULTILINE | re.DOTALL)
    [maintainers] = re.findall(r"^maintainers = .+$", guide, re.MULTILINE)
    project = tomllib.loads(f"{maintainers}\n{written}")
    change = {"urls": project["project"]["urls"], "maintainers": project["maintainers"]}
    assert against("v1.2", {"version": "1.2", **change}, CHANGELOG) == []


@pytest.mark.parametrize("name", ["build", "check", "publish"])
def test_what_it_is_made_with_is_pinned_by_hash(name: str) -> None:
    asked = Path(ROOT, f"release/{name}.in").read_text(encoding="ascii").split()
    text = Path(ROOT, f"release/{name}.txt").read_text(encoding="ascii")
    pinned = re.findall(
        r"^([a-z0-9.-]+)==\S+.*? \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE
    )
    assert set(asked) <= set(pinned)
    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
