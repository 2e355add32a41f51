# SPDX-License-Identifier: MIT
"""A delivered storewarden, and a staging directory, both an ordinary user's."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from delivery import deliver_here
from staging import USER


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="storewarden-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user is another one
        yield deliver_here(f"{directory}/venv")


@pytest.fixture
def top() -> Iterator[str]:
    """A staging directory of the ordinary user's."""
    with tempfile.TemporaryDirectory(prefix="storewarden-") as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - the user is another one
        place = f"{directory}/staging"
        os.mkdir(place, 0o755)
        os.chown(place, USER, -1)
        yield place
