# SPDX-License-Identifier: MIT
"""What becomes of what an interrupted run left, over every combination that there can be."""

import itertools

import pytest

from storewarden.helper.resume import Fate, fate
from storewarden.store.store import Known

_SAID = list(itertools.product(Known, Known))


def becomes(said: tuple[Known, Known], *, proved: bool, there: bool) -> Fate:
    """The fate of what Nix and the database say so of."""
    nix, database = said
    return fate(nix, database, is_what_was_proved=proved, is_there_again=there)


@pytest.mark.parametrize("said", _SAID)
def test_another_thing_than_the_intent_speaks_of_is_never_purged(
    said: tuple[Known, Known],
) -> None:
    for there in (True, False):
        assert becomes(said, proved=False, there=there) is not Fate.PURGE


@pytest.mark.parametrize("said", [said for said in _SAID if Known.UNKNOWN in said])
def test_what_cannot_be_told_is_never_purged(said: tuple[Known, Known]) -> None:
    for proved, there in itertools.product((True, False), repeat=2):
        seen = becomes(said, proved=proved, there=there)
        assert seen is (Fate.PUT_BACK if Known.YES in said else Fate.WAIT)


@pytest.mark.parametrize("said", [said for said in _SAID if set(said) == {Known.NO}])
def test_what_was_proved_dead_and_is_not_valid_is_purged(said: tuple[Known, Known]) -> None:
    for there in (True, False):
        assert becomes(said, proved=True, there=there) is Fate.PURGE
        assert becomes(said, proved=False, there=there) is Fate.PUT_BACK


@pytest.mark.parametrize(
    "said", [said for said in _SAID if Known.YES in said and Known.UNKNOWN not in said]
)
def test_what_is_valid_goes_back_unless_it_is_there_again(said: tuple[Known, Known]) -> None:
    assert becomes(said, proved=True, there=False) is Fate.PUT_BACK
    assert becomes(said, proved=False, there=True) is Fate.PUT_BACK
    assert becomes(said, proved=True, there=True) is Fate.PURGE
