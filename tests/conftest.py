# SPDX-License-Identifier: MIT
"""Cuts every test off from the machine's own Nix, and gives a throwaway store."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storewarden.throwaway import ThrowawayStore

for name in [name for name in os.environ if name.startswith("NIX_")]:
    del os.environ[name]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[ThrowawayStore]:
    """An empty throwaway store with some valid paths, so that its database is believed."""
    throwaway = ThrowawayStore.create(str(tmp_path))
    for number in range(3):
        throwaway.add_valid(f"valid-{number}")
    yield throwaway
    throwaway.close()
