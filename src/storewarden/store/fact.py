# SPDX-License-Identifier: MIT
"""A fact: yes, no, or unknown, which is never taken for no."""

from dataclasses import dataclass
from enum import Enum


class Known(Enum):
    """A fact, or the lack of one."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fact:
    """Whether a claim holds, and what was seen, in plain words."""

    known: Known
    detail: str = ""


NO, UNKNOWN = Fact(Known.NO), Fact(Known.UNKNOWN)
