# SPDX-License-Identifier: MIT
"""One rig for the whole run, made empty before each test that asks for it."""

import os
from collections.abc import Iterator

import pytest

from real.rig import Rig, missing, opened_rig, reset


@pytest.fixture(scope="session")
def nix_machine() -> Iterator[Rig]:
    reason = missing()
    if reason is not None and os.environ.get("STOREWARDEN_REQUIRE_REAL_NIX") == "1":
        pytest.fail(f"real Nix is required, but {reason}")
    if reason is not None:
        pytest.skip(reason)
    with opened_rig() as rig:
        yield rig


@pytest.fixture
def rig(nix_machine: Rig) -> Rig:
    reset(nix_machine)
    return nix_machine
