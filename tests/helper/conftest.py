# SPDX-License-Identifier: MIT
"""A throwaway store whose sockets have short names, and which other users can reach."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from storewarden.throwaway import ThrowawayStore
from sweeps import own_place


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
