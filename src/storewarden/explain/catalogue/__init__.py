# SPDX-License-Identifier: MIT
"""The failures that are known, in the order in which they are told: what blocks most, first."""

from storewarden.explain.catalogue import builders, deletion, machine, outputs, records, waiting
from storewarden.explain.failures import Failure

CATALOGUE: tuple[Failure, ...] = (
    *outputs.FAILURES,
    *records.FAILURES,
    *machine.FAILURES,
    *builders.FAILURES,
    *deletion.FAILURES,
    *waiting.FAILURES,
)
MARKS: frozenset[bytes] = frozenset(
    sign.mark for one in CATALOGUE for sign in (*one.signs, *one.own_signs)
)
"""A line without any of them, in lower case, fits no sign."""


def known(line: str) -> Failure | None:
    """The first failure with a sign that fits the line, which is `plain` and names a path."""
    return _first(CATALOGUE, line)


def known_without_path(line: str) -> Failure | None:
    """The same for a line that names no store path."""
    return _first(_WITHOUT_PATH, line)


_WITHOUT_PATH = tuple(one for one in CATALOGUE if not one.needs_path)


def _first(failures: tuple[Failure, ...], line: str) -> Failure | None:
    return next((one for one in failures if any(sign.fits(line) for sign in one.signs)), None)
