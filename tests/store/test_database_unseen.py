# SPDX-License-Identifier: MIT
"""An ordinary user who cannot open the database: that is unknown, never "not registered"."""

import os
from collections.abc import Iterator

import pytest

from storewarden.store.database import DatabaseUnseenError
from storewarden.throwaway import ThrowawayStore
from sweeps import origins_of, valid_names

pytestmark = pytest.mark.skipif(os.geteuid() == 0, reason="root can open every database")


@pytest.fixture
def sealed(place: ThrowawayStore) -> Iterator[ThrowawayStore]:
    """A store whose database directory this user may only read, without a `-shm` file in it."""
    directory = f"{place.state_dir}/db"
    for suffix in ("-wal", "-shm"):
        if os.path.exists(f"{directory}/db.sqlite{suffix}"):
            os.unlink(f"{directory}/db.sqlite{suffix}")
    os.chmod(directory, 0o500)
    yield place
    os.chmod(directory, 0o700)


def test_without_shared_memory_and_no_right_to_make_it_the_database_is_unseen(
    sealed: ThrowawayStore,
) -> None:
    with pytest.raises(DatabaseUnseenError):
        set(valid_names(sealed.state_dir, sealed.store_dir))


def test_a_database_without_permission_is_unseen(sealed: ThrowawayStore) -> None:
    os.chmod(f"{sealed.state_dir}/db/db.sqlite", 0)
    with pytest.raises(DatabaseUnseenError):
        set(valid_names(sealed.state_dir, sealed.store_dir))


@pytest.mark.parametrize("name", ["db", "db/schema"])
def test_a_schema_without_permission_is_unseen(sealed: ThrowawayStore, name: str) -> None:
    path = f"{sealed.state_dir}/{name}"
    os.chmod(path, 0)
    try:
        with pytest.raises(DatabaseUnseenError, match="permission denied"):
            set(valid_names(sealed.state_dir, sealed.store_dir))
    finally:
        os.chmod(path, 0o700)


def test_its_derivers_are_simply_not_known(sealed: ThrowawayStore) -> None:
    assert origins_of(sealed.as_store(), -1, [sealed.invent("valid-0")], []) == {}
