# SPDX-License-Identifier: MIT
"""A question that has to be answered in time, such as to a file server that is gone."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from storewarden.doctor.facts import Unknown
from storewarden.errors import StorewardenError

T = TypeVar("T")
SECONDS = 10.0


def within(question: Callable[[], T], seconds: float = SECONDS) -> T | Unknown:
    """Its answer; `Unknown` where there is none in time, or the system or the store refuse it.

    What does not answer is left behind in a thread that ends with this process.
    """
    answers: list[T | Unknown] = []
    faults: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(question())
        except OSError as cause:
            answers.append(Unknown(reason(cause)))
        except StorewardenError as cause:
            answers.append(Unknown(str(cause)))
        except Exception as fault:  # noqa: BLE001 - a bug is told where it was asked, not here
            faults.append(fault)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    return answers[0] if answers else Unknown(f"there was no answer within {seconds:.0f} s")


def reason(cause: OSError) -> str:
    """What the system said, with the path if it named one."""
    text = (os.strerror(cause.errno) if cause.errno else str(cause)).lower()
    return f"{cause.filename}: {text}" if cause.filename else text
