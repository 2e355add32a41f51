# SPDX-License-Identifier: MIT
"""Questions that are answered, refused, or never answered."""

import os
import time
from pathlib import Path

import pytest

from storewarden.doctor.bounded import within
from storewarden.doctor.facts import Unknown
from storewarden.errors import StoreUnreadableError


def test_an_answer_comes_through() -> None:
    assert within(lambda: 7) == 7
    assert within(lambda: None) is None


def test_what_the_system_refuses_is_unknown_with_its_reason(tmp_path: Path) -> None:
    place = f"{tmp_path}/absent"
    assert within(lambda: os.stat(place)) == Unknown(f"{place}: no such file or directory")


def test_what_the_store_refuses_is_unknown_with_its_reason() -> None:
    def refuse() -> int:
        raise StoreUnreadableError("it cannot be read")

    assert within(refuse) == Unknown("it cannot be read")


def test_what_is_not_answered_in_time_is_unknown() -> None:
    reader, writer = os.pipe()
    began = time.monotonic()
    answer = within(lambda: os.read(reader, 1), 0.2)  # nobody writes
    assert answer == Unknown("there was no answer within 0 s")
    assert time.monotonic() - began < 5
    os.write(writer, b"!")  # let the thread end
    os.close(writer)


def test_a_bug_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 // 0)
