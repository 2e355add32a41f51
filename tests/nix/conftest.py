# SPDX-License-Identifier: MIT
"""A Nix for these tests: its store is made once, so what was built is there for the next test."""

import pytest

from nix.evaluating import Nix, own_nix
from nix.rendered import Rendered, render


@pytest.fixture(scope="session")
def nix(tmp_path_factory: pytest.TempPathFactory) -> Nix:
    return own_nix(str(tmp_path_factory.mktemp("nix")))


@pytest.fixture(scope="session")
def plain(nix: Nix) -> Rendered:
    """What the module makes when nothing but `enable` is set."""
    return render(nix)
