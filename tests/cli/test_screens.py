# SPDX-License-Identifier: MIT
"""What a tired person sees of 1, 5, 60 and 300 stranded outputs, at 40, 80 and 120 columns."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from cli.test_status import NOT_SET_UP, NOW, STUCK, WELL
from storewarden.audit import Intent
from storewarden.audit_reading import Removal
from storewarden.cli.audit import removal_line
from storewarden.cli.findings import MOST, sweep_lines
from storewarden.cli.status import status_lines
from storewarden.daemon.status import Removed
from storewarden.readable import Style
from storewarden.scan import Sweep, sweep
from storewarden.throwaway import ThrowawayStore
from sweeps import SEES_LOCKS

WIDTHS = (40, 80, 120)
MANY = (1, 5, 60, 300)
_SCREENS = pytest.mark.parametrize(("many", "width"), [*itertools.product(MANY, WIDTHS)])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ThrowawayStore, Sweep]]:
    """A store with 300 stranded outputs, their locks, and what is only reported; looked at once."""
    place = ThrowawayStore.create(str(tmp_path_factory.mktemp("store")))
    for number in range(3):
        place.add_valid(f"valid-{number}")
    for number in range(max(MANY)):
        place.strand(place.add_derivation(f"package-{number}-1.0"))
    place.add_file(".DS_Store")
    yield place, sweep(place.as_store())
    place.close()


def assert_fits(lines: Iterable[str], width: int) -> list[str]:
    """No line is longer than the terminal, but for a long word, or a command, which stays whole.

    Gives all lines as they stand there.
    """
    stand = [line for some in lines for line in some.split("\n")]
    for line in stand:
        indent = len(line) - len(line.lstrip())
        longest = max((len(word) for word in line.split()), default=0)
        whole = indent + longest > width - 16 or "storewarden " in line
        assert len(line) <= width or whole, line
    return stand


@_SCREENS
def test_a_scan_fits_and_tells_first_what_it_comes_to(
    swept: tuple[ThrowawayStore, Sweep], many: int, width: int
) -> None:
    place, whole = swept
    outputs = [f for f in whole.findings if f.kind.value == "output"][:many]
    odd = [f for f in whole.findings if f.kind.value == "foreign"]
    some = replace(whole, findings=(*outputs, *odd))
    style = Style(width=width, terminal=True)
    lines = assert_fits(sweep_lines(some, place.as_store(), style=style, most=MOST), width)
    assert lines[0].startswith(f"{many + 1} found in ")
    assert f"{many} output" in " ".join(" ".join(lines[:4]).split())
    assert len([line for line in lines if line.startswith("/")]) == min(many + 1, MOST)
    assert (lines[-1] == f"... {many + 1 - MOST} more: --all") == (many >= MOST)
    assert len(lines) <= (70 if width == min(WIDTHS) else 45) + (not SEES_LOCKS)


@_SCREENS
def test_a_status_fits_and_has_its_headline_on_the_first_screen(many: int, width: int) -> None:
    stuck = tuple(replace(STUCK, name=f"{number:032}-a") for number in range(min(many, 100)))
    gone = tuple(Removed(f"{number:032}-b", "output", NOW, 3, 99) for number in range(20))
    status = replace(WELL, stuck=stuck, stuck_count=many, recent=gone)
    style = Style(width=width, terminal=True)
    told = status_lines(status, NOW, style, MOST, running=True, starting=NOT_SET_UP)
    lines = assert_fits(told, width)
    assert lines[0].startswith("storewarden is running")
    assert len([line for line in lines if line.endswith("-a")]) == min(many, MOST)
    assert (f"  ... {many - MOST} more: --all" in lines) == (many > MOST)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_removal_is_a_line_that_fits(width: int) -> None:
    intent = Intent(name="x", deriver="y.drv")
    name = f"{0:032}-package-1.0"
    one = Removal(name, "output", "2026-11-30T05:00:00Z", "removed", (), 3, 99, 2, intent)
    lines = assert_fits([removal_line(one, Style(width=width, terminal=True))], width)
    assert len(lines) <= 5
    assert "removed" in lines[0]
    assert "\n" not in removal_line(one)
