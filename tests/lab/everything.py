# SPDX-License-Identifier: MIT
"""All of the lab: every suite in a pytest of its own, side by side, and one table of them all.

python -m lab.everything [--table FILE] [words for pytest]
"""

import argparse
import os
import subprocess
import sys
import tempfile

from lab.places import SUITES
from lab.table import TALLY, Row, load, markdown, table


def main() -> int:
    """Run it; the exit code is the worst of the three."""
    asked = argparse.ArgumentParser(allow_abbrev=False)
    asked.add_argument("--table", metavar="FILE", help="write the results as Markdown")
    options, words = asked.parse_known_args()
    with tempfile.TemporaryDirectory() as place:
        started = {suite: _start(suite, place, words) for suite in SUITES}
        codes = {suite: process.wait() for suite, process in started.items()}
        for suite, code in codes.items():
            if code != 0:
                with open(f"{place}/{suite}.log", encoding="utf-8", errors="replace") as log:
                    _say(log.read())
        counted = [line for suite in SUITES for line in _tallies(f"{place}/{suite}.log")]
        rows = [row for suite in SUITES for row in _rows(f"{place}/{suite}.json")]
    for line in (*table(rows), *counted) if rows else ["no test has run"]:
        _say(line)
    if options.table is not None and rows:
        with open(options.table, "w", encoding="utf-8") as file:
            file.write(markdown(rows))
    return max(codes.values()) if rows else 1


def _start(suite: str, place: str, words: list[str]) -> subprocess.Popen[bytes]:
    ours = [f"--lab-suite={suite}", f"--lab-rows={place}/{suite}.json"]
    here = os.path.dirname(os.path.abspath(__file__))
    with open(f"{place}/{suite}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", here, "-p", "no:cacheprovider", *ours, *words],
            stdout=log,
            stderr=log,
        )


def _rows(place: str) -> list[Row]:
    return load(place) if os.path.exists(place) else []


def _tallies(log: str) -> list[str]:
    with open(log, encoding="utf-8", errors="replace") as file:
        return [line.rstrip() for line in file if line.startswith(TALLY)]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it is what this is for


if __name__ == "__main__":
    sys.exit(main())
