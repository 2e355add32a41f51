# SPDX-License-Identifier: MIT
"""Whether a database can be this store's at all: if it is not, everything looks stranded."""

import pytest

from storewarden.errors import StoreUnreadableError
from storewarden.store.database import check_census, connect, sample
from storewarden.throwaway import ThrowawayStore
from sweeps import valid_names


@pytest.mark.parametrize(
    ("census", "refusal"),
    [
        ((0, 0, 1), "no valid path at all"),
        ((0, 0, 5), "no valid path at all"),
        ((10, 0, 1), "no path that the database knows"),
        ((10, 10, 101), "too many"),
        ((1000, 1000, 1001), "too many"),
    ],
)
def test_a_database_that_does_not_fit_the_store_is_refused(
    census: tuple[int, int, int], refusal: str
) -> None:
    with pytest.raises(StoreUnreadableError, match=refusal):
        check_census(*census, lambda: 0)


@pytest.mark.parametrize("census", [(1, 1, 100), (1000, 1000, 1000), (3, 1, 0)])
def test_one_that_fits_is_believed(census: tuple[int, int, int]) -> None:
    check_census(*census, _never)


def test_a_new_store_in_which_nothing_is_strange_is_fine() -> None:
    check_census(0, 0, 0, _never)


@pytest.mark.parametrize(("owned", "refused"), [(100, True), (101, False), (201, False)])
def test_what_build_users_own_does_not_count(owned: int, *, refused: bool) -> None:
    if not refused:
        check_census(10, 10, 201, lambda: owned)
        return
    with pytest.raises(StoreUnreadableError, match="101 of 111 store paths of root's"):
        check_census(10, 10, 201, lambda: owned)


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
