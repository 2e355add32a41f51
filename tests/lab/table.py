# SPDX-License-Identifier: MIT
"""What came out of the lab's tests, as a table of cases by versions of Nix.

The documentation's table is written by this, so that it says what was seen and nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pytest

from lab.places import SUITES

TALLY = "tally: "
"""What a line begins with that a test has counted, in a log of pytest's."""
_NIX = {"bookworm": "Nix 2.8", "trixie": "Nix 2.26", "forky": "Nix 2.34"}


@dataclass(frozen=True, slots=True, order=True)
class Row:
    subject: str
    """The file that the test is in."""
    line: int
    order: int
    """Among the cases of one test, as they were written."""
    case: str
    suite: str
    result: str


def row_of(item: pytest.Item, report: pytest.TestReport) -> Row | None:
    """The result of a test at the end of its call, or of its set-up where it came no further."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return None
    suite = item.callspec.params.get("machine")
    if not isinstance(suite, str) or (report.when == "setup" and report.passed):
        return None
    if report.when == "teardown" and not report.failed:
        return None
    order = sum(
        1000**n * index
        for n, (name, index) in enumerate(reversed(item.callspec.indices.items()))
        if name != "machine"
    )
    # Not item.location: a test that the private rig has as well is told where it was run.
    subject = item.path.stem.removeprefix("test_").replace("_", " ")
    return Row(subject, item.location[1] or 0, order, _case(item, suite), suite, _result(report))


def table(rows: Sequence[Row]) -> list[str]:
    """For people at a terminal: a line a case, then why some were left out."""
    suites = _suites(rows)
    cases = _cases(rows)
    width = max(len(case) for _, case in cases)
    lines = [_line("", [_NIX[suite] for suite in suites], width)]
    for (_, case), by_suite in cases.items():
        lines.append(_line(case, [_mark(by_suite.get(suite, "")) for suite in suites], width))
    return [*lines, *sorted({row.result for row in rows if row.result.startswith("skipped")})]


def markdown(rows: Sequence[Row]) -> str:
    """For the documentation: the same every time, as long as the results are."""
    suites = _suites(rows)
    lines = [
        "# What the lab showed",
        "",
        "Written by `make lab`: real Nix, booted with real systemd, one root a version.",
        "The names of the cases are the names of the tests in `tests/lab`.",
    ]
    last = ""
    for (subject, case), by_suite in _cases(rows).items():
        if subject != last:
            lines += ["", f"## {subject.capitalize()}", ""]
            lines += [f"| case | {' | '.join(_NIX[suite] for suite in suites)} |"]
            lines += ["| --- |" + " --- |" * len(suites)]
        last = subject
        lines += [f"| {case} | {' | '.join(by_suite.get(suite, '') for suite in suites)} |"]
    return "\n".join([*lines, ""])


def save(place: str, rows: Sequence[Row]) -> None:
    """Write rows so that `load` reads them."""
    with open(place, "w", encoding="utf-8") as file:
        json.dump([asdict(row) for row in rows], file)


def load(place: str) -> list[Row]:
    """The rows that a run has saved."""
    with open(place, encoding="utf-8") as file:
        return [Row(**one) for one in json.load(file)]


def _line(case: str, marks: Sequence[str], width: int) -> str:
    return "  ".join([f"{case:{width}}", *(f"{mark:8}" for mark in marks)]).rstrip()


def _cases(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, str]]:
    cases: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows):
        by_suite = cases.setdefault((row.subject, row.case), {})
        # A test that fails and then cannot be ended is told once, as what came first.
        by_suite.setdefault(row.suite, row.result)
        if row.result == "FAILED":
            by_suite[row.suite] = row.result
    return cases


def _suites(rows: Sequence[Row]) -> list[str]:
    return [suite for suite in SUITES if any(row.suite == suite for row in rows)]


def _case(item: pytest.Function, suite: str) -> str:
    """The test's name as a sentence, with its other parameters."""
    sentence = item.originalname.removeprefix("test_").replace("_", " ")
    words = item.callspec.id.removeprefix(f"{suite}-").removesuffix(f"-{suite}")
    given = [] if words == suite else words.split("-")
    return f"{sentence}: {', '.join(given)}" if given else sentence


def _result(report: pytest.TestReport) -> str:
    if report.passed:
        return "ok"
    if report.skipped and isinstance(report.longrepr, tuple):
        return f"skipped: {report.longrepr[2].removeprefix('Skipped: ')}"
    return "FAILED"


def _mark(result: str) -> str:
    return "skipped" if result.startswith("skipped") else result
