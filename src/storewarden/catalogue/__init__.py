# SPDX-License-Identifier: MIT
"""The failures that are known, in the order in which they are told: what blocks most, first."""

from storewarden.catalogue import builders, deletion, machine, outputs, records, waiting
from storewarden.failures import Failure

CATALOGUE: tuple[Failure, ...] = (
    *outputs.FAILURES,
    *records.FAILURES,
    *machine.FAILURES,
    *builders.FAILURES,
    *deletion.FAILURES,
    *waiting.FAILURES,
)
