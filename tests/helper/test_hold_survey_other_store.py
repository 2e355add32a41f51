# SPDX-License-Identifier: MIT
"""A database that is not this store's is not believed, however large it is."""

import os
from dataclasses import replace

import pytest

from helper.bench import names, records, run
from storewarden.errors import StoreUnreadableError
from storewarden.store.store import NO
from storewarden.throwaway import ThrowawayStore


def test_a_database_of_things_that_are_not_there_is_not_believed(place: ThrowawayStore) -> None:
    path = place.strand(place.invent("x.drv")).base_name
    for number in range(3):
        os.unlink(place.path(place.invent(f"valid-{number}").base_name))
    with pytest.raises(StoreUnreadableError, match="no path that the database knows"):
        run(place, path)
    assert path in names(place)
    assert not records(place)


def test_the_database_of_another_store_on_this_machine_is_not_believed(
    place: ThrowawayStore, near: ThrowawayStore
) -> None:
    for number in range(8):
        near.add_valid(f"more-{number}")
    path = place.strand(place.invent("x.drv")).base_name
    store = replace(
        place.as_store(),
        state_dir=near.state_dir,
        ask_nix=lambda paths: dict.fromkeys(paths, NO),
    )
    with pytest.raises(StoreUnreadableError, match="no path that the database knows"):
        run(place, path, store=store)
    assert path in names(place)
    assert not records(place)
