# SPDX-License-Identifier: MIT
"""What most tests of the helper begin with: a stranded output, locks, a store with short names."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore
from sweeps import own_place


@pytest.fixture
def derivation(place: ThrowawayStore) -> StorePath:
    return place.add_derivation("x")


@pytest.fixture
def scratch(place: ThrowawayStore, derivation: StorePath) -> StorePath:
    """An output of that derivation that a build left behind, with its lock."""
    return place.strand(derivation)


@pytest.fixture
def locks() -> Iterator[ExitStack]:
    """Takes the locks that a test has taken, and lets them go at its end."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def near() -> Iterator[ThrowawayStore]:
    """A store so high up that the name of a socket beside it is not too long for one."""
    with tempfile.TemporaryDirectory(prefix="sw-") as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - clients are other users
        place = own_place(directory)
        for number in range(3):
            place.add_valid(f"valid-{number}")
        os.mkdir(f"{directory}/log", 0o700)
        yield place
        place.close()
