# SPDX-License-Identifier: MIT
"""The quick part of `make model`: a search finds what it has to, and nothing where laws hold."""

import pytest

from model.engine import Engine
from model.protocol import (
    COLLECTED_LIVE,
    EVERYTHING,
    MOVED_LIVE,
    Form,
    Guard,
    Nix,
)
from model.search import CONTROLS, Case, main, search


def test_that_nix_collects_what_a_live_build_makes_is_found() -> None:
    [way] = search(CONTROLS["Nix's own collector"]).broken.items()
    assert way[0] == COLLECTED_LIVE
    assert way[1][-2:] == ["collector begins", "collector deletes the path"]


@pytest.mark.slow
def test_the_race_of_a_redirect_that_was_mended_is_found() -> None:
    # 62ee411 took the lock of what a redirect stands for; before, a build could begin meanwhile.
    [way] = search(CONTROLS["a redirect, by the engine of 135742a"]).broken.items()
    assert way[0] == MOVED_LIVE
    assert way[1][-1] == "helper 0 renames it"


@pytest.mark.parametrize("form", [Form.SCRATCH, Form.REDIRECT])
def test_with_one_build_after_the_other_and_nobody_killed_of_us_all_laws_hold(form: Form) -> None:
    found = search(Case(Nix(form, listed=()), Engine(EVERYTHING), kills=0))
    assert found.whole
    assert not found.broken
    assert found.states > 10_000


@pytest.mark.parametrize("guard", [Guard.COVER, Guard.ORPHAN])
def test_an_engine_that_does_not_ask_for_one_of_these_is_found_out(guard: Guard) -> None:
    found = search(Case(Nix(Form.SCRATCH, listed=()), Engine(EVERYTHING & ~guard), kills=0))
    assert [*found.broken] == [MOVED_LIVE]


def test_a_case_that_is_broken_is_told_by_its_exit_status() -> None:
    assert main(["Nix's own collector"]) == 0
    assert main(["a scratch path, two helpers", "--most=100"]) == 1
