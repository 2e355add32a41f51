# SPDX-License-Identifier: MIT
"""One rig for the whole run, made empty before each test that asks for it."""

from collections.abc import Iterator

import pytest

from programs import need
from real.rig import Rig, missing, opened_rig, reset


@pytest.fixture(scope="session")
def nix_machine() -> Iterator[Rig]:
    need("real Nix", missing())
    with opened_rig() as rig:
        yield rig


@pytest.fixture
def rig(nix_machine: Rig) -> Rig:
    reset(nix_machine)
    return nix_machine
