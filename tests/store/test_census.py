# SPDX-License-Identifier: MIT
"""Whether a database can be this store's at all: if it is not, everything looks stranded."""

import pytest

from storewarden.errors import StoreUnreadableError
from storewarden.store.database import Census, connect, sample
from storewarden.throwaway import ThrowawayStore
from sweeps import valid_names


@pytest.mark.parametrize(
    ("census", "refusal"),
    [
        (Census(0, 0, 1), "no valid path at all"),
        (Census(0, 0, 5), "no valid path at all"),
        (Census(10, 0, 1), "no path that the database knows"),
        (Census(10, 10, 101), "too many"),
        (Census(1000, 1000, 1001), "too many"),
    ],
)
def test_a_database_that_does_not_fit_the_store_is_refused(census: Census, refusal: str) -> None:
    with pytest.raises(StoreUnreadableError, match=refusal):
        census.check(lambda: 0)


@pytest.mark.parametrize("census", [(1, 1, 100), (1000, 1000, 1000), (3, 1, 0)])
def test_one_that_fits_is_believed(census: tuple[int, int, int]) -> None:
    Census(*census).check(_never)


def test_a_new_store_in_which_nothing_is_strange_is_fine() -> None:
    Census(0, 0, 0).check(_never)


@pytest.mark.parametrize(("owned", "refused"), [(100, True), (101, False), (201, False)])
def test_what_build_users_own_does_not_count(owned: int, *, refused: bool) -> None:
    census = Census(10, 10, 201)
    if not refused:
        census.check(lambda: owned)
        return
    with pytest.raises(StoreUnreadableError, match="101 of 111 store paths of root's"):
        census.check(lambda: owned)


def _never() -> int:
    pytest.fail("owners were looked at, where all is well")


def test_a_sample_is_spread_over_the_paths_that_are_there(place: ThrowawayStore) -> None:
    more = [place.invent(f"more-{number}") for number in range(500)]
    place.register(*more)
    with connect(place.state_dir) as connection:
        count, names = sample(connection, place.store_dir)
    assert count == 503
    assert len(names) == len(set(names)) == 64
    assert set(names) <= set(valid_names(place.state_dir, place.store_dir))
