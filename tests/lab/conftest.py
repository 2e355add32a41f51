# SPDX-License-Identifier: MIT
"""A booted root for every test here, its store made empty, and the table of what came out."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.machine import Machine, booted, reset
from lab.places import REQUIRED, SUITES, missing
from lab.service import delivered, installed, running
from lab.table import TALLY, Row, markdown, row_of, save, table
from real.rig import Rig

_ROWS = pytest.StashKey[list[Row]]()
_TALLIES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options = parser.getgroup("storewarden's lab")
    options.addoption("--lab-suite", action="append", choices=SUITES, help="only on that root")
    options.addoption("--lab-table", metavar="FILE", help="write the results as Markdown")
    options.addoption("--lab-rows", metavar="FILE", help="write the results as JSON, to merge")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []
    config.stash[_TALLIES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "machine" in metafunc.fixturenames:
        # None where this file was read too late for its options, as by a bare `pytest`.
        chosen = metafunc.config.getoption("--lab-suite", default=None) or SUITES
        metafunc.parametrize("machine", chosen, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "machine" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def machines() -> Iterator[tuple[ExitStack, dict[str, Machine]]]:
    with ExitStack() as stack:
        yield stack, {}


@pytest.fixture
def machine(
    request: pytest.FixtureRequest, machines: tuple[ExitStack, dict[str, Machine]]
) -> Machine:
    """One that runs; a test may cut its power."""
    suite: str = request.param
    reason = missing(suite)
    if reason is not None and REQUIRED:
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)
    stack, running = machines
    if suite not in running:
        running[suite] = stack.enter_context(booted(suite))
    reset(running[suite])
    return running[suite]


@pytest.fixture
def rig(machine: Machine) -> Rig:
    """The same, for a test that leaves it running."""
    return machine.rig


@pytest.fixture
def python(machine: Machine) -> Iterator[str]:
    """The interpreter of a user's own storewarden, which is not set up yet."""
    with delivered(machine) as found:
        yield found


@pytest.fixture(scope="module")
def installations() -> Iterator[tuple[ExitStack, dict[str, str]]]:
    """To set up and take back takes longer than most of the tests: once a file is enough."""
    with ExitStack() as stack:
        yield stack, {}


@pytest.fixture
def service(machine: Machine, installations: tuple[ExitStack, dict[str, str]]) -> Iterator[Machine]:
    """The service as it was set up, with no log, and started when the store had been emptied."""
    stack, configurations = installations
    if machine.suite not in configurations:
        configurations[machine.suite] = stack.enter_context(installed(machine))
    with running(machine, configurations[machine.suite]):
        yield machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    row = row_of(item, report)
    if row is not None:
        item.config.stash[_ROWS].append(row)
    if report.when == "call":
        told = dict(report.user_properties)
        item.config.stash[_TALLIES] += [f"{TALLY}{told['tally']}"] if "tally" in told else []
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("the lab")
    for line in (*table(rows), *config.stash[_TALLIES]):
        terminalreporter.write_line(line)
    if (place := config.getoption("--lab-table", default=None)) is not None:
        Path(place).write_text(markdown(rows), encoding="utf-8")
    if (place := config.getoption("--lab-rows", default=None)) is not None:
        save(place, rows)
