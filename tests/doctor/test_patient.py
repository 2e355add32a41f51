# SPDX-License-Identifier: MIT
"""Questions that are answered, refused, or never answered; and facts that nobody has looked at."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from command import ROOT
from storewarden.doctor.patient import Patient, Unknown, attempt, exists, within
from storewarden.errors import StoreUnreadableError
from storewarden.store.store import Known
from well import WELL

Ask = Callable[[Callable[[], object]], object]


def test_an_answer_comes_through() -> None:
    assert within(lambda: 7) == 7
    assert within(lambda: None) is None


@pytest.mark.parametrize("ask", [attempt, within])
def test_what_the_system_refuses_is_unknown_with_its_reason(tmp_path: Path, ask: Ask) -> None:
    place = f"{tmp_path}/absent"
    assert ask(lambda: os.stat(place)) == Unknown(f"{place}: no such file or directory")


@pytest.mark.parametrize("ask", [attempt, within])
def test_what_the_store_refuses_is_unknown_with_its_reason(ask: Ask) -> None:
    def refuse() -> int:
        raise StoreUnreadableError("it cannot be read")

    assert ask(refuse) == Unknown("it cannot be read")


def test_what_is_not_answered_in_time_is_unknown() -> None:
    reader, writer = os.pipe()
    answer = within(lambda: os.read(reader, 1), 0.2)  # nobody writes, so what was asked never ends
    assert answer == Unknown("there was no answer within 0 s")
    os.write(writer, b"!")  # let the thread end
    os.close(writer)


def test_a_bug_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 // 0)


def test_a_link_to_nothing_is_there(tmp_path: Path) -> None:
    os.symlink("nowhere", f"{tmp_path}/link")
    assert exists(f"{tmp_path}/link") is Known.YES
    assert exists(f"{tmp_path}/absent") is Known.NO


@pytest.mark.skipif(ROOT, reason="root may look everywhere")
def test_whether_something_is_behind_a_closed_directory_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "closed/in").mkdir(parents=True)
    os.chmod(tmp_path / "closed", 0)
    assert exists(f"{tmp_path}/closed/in") is Known.UNKNOWN
    os.chmod(tmp_path / "closed", 0o700)


def test_facts_that_no_check_has_looked_at_are_missed_by_name() -> None:
    with pytest.raises(LookupError, match="no check has looked at Patient"):
        WELL[Patient]
