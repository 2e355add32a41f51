# SPDX-License-Identifier: MIT
"""Whether a tag may become a release; prints what is new in it, from the changelog."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def against(tag: str, project: dict[str, Any], changelog: str) -> list[str]:
    """What speaks against it, in plain words; the project is that of pyproject.toml."""
    version = project["version"]
    return [
        text
        for wrong, text in (
            (tag != f"v{version}", f"the tag is {tag}, and the version {version}"),
            (not new_in(version, changelog), f"CHANGELOG.md has no part {version}"),
            (
                not {"Homepage", "Changelog"} <= project.get("urls", {}).keys(),
                "pyproject.toml has no addresses (CONTRIBUTING.md, Publishing)",
            ),
            (
                not any("email" in one for one in project.get("maintainers", ())),
                "pyproject.toml names no maintainer to write to about security (SECURITY.md)",
            ),
        )
        if wrong
    ]


def new_in(version: str, changelog: str) -> str:
    """That version's part of the changelog, without its heading; empty if there is none."""
    found = re.search(
        rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found else ""


def main(tag: str) -> int:
    """Print what is new to stdout, or to stderr why it is no release: 1."""
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = Path(ROOT, "CHANGELOG.md").read_text(encoding="utf-8")
    if wrong := against(tag, project, changelog):
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    print(new_in(project["version"], changelog))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
