# SPDX-License-Identifier: MIT
"""An empty store directory is none."""

import pytest

from storewarden.errors import BadStorePathError
from storewarden.store.paths import StoreDir


def test_no_directory_at_all_is_refused() -> None:
    with pytest.raises(BadStorePathError):
        StoreDir("")
