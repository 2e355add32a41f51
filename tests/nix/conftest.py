# SPDX-License-Identifier: MIT
"""A Nix for these tests: a store is made once, what was built in it is there for the next."""

import pytest

from nix.evaluating import Nix, new_nix


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    return new_nix(str(tmp_path_factory.mktemp("nix")))
