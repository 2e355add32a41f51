# SPDX-License-Identifier: MIT
"""An ordinary user who cannot open the database: that is unknown, never "not registered"."""

import os
from collections.abc import Iterator

import pytest

from storewarden.store.database import DatabaseUnseenError
from storewarden.throwaway import ThrowawayStore
from sweeps import origins_of, sealed, valid_names

pytestmark = pytest.mark.skipif(os.geteuid() == 0, reason="root can open every database")


@pytest.fixture
def unseen(place: ThrowawayStore) -> Iterator[ThrowawayStore]:
    with sealed(place):
        yield place


def test_without_shared_memory_and_no_right_to_make_it_the_database_is_unseen(
    unseen: ThrowawayStore,
) -> None:
    with pytest.raises(DatabaseUnseenError):
        set(valid_names(unseen.state_dir, unseen.store_dir))


def test_a_database_without_permission_is_unseen(unseen: ThrowawayStore) -> None:
    os.chmod(f"{unseen.state_dir}/db/db.sqlite", 0)
    with pytest.raises(DatabaseUnseenError):
        set(valid_names(unseen.state_dir, unseen.store_dir))


@pytest.mark.parametrize("name", ["db", "db/schema"])
def test_a_schema_without_permission_is_unseen(unseen: ThrowawayStore, name: str) -> None:
    path = f"{unseen.state_dir}/{name}"
    os.chmod(path, 0)
    try:
        with pytest.raises(DatabaseUnseenError, match="permission denied"):
            set(valid_names(unseen.state_dir, unseen.store_dir))
    finally:
        os.chmod(path, 0o700)


def test_its_derivers_are_simply_not_known(unseen: ThrowawayStore) -> None:
    assert origins_of(unseen.as_store(), -1, [unseen.invent("valid-0")], []) == {}
