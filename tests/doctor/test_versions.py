# SPDX-License-Identifier: MIT
"""What `nix --version` prints, and what is made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.doctor.versions import Flavour, parse_version

PRINTED = {
    "nix (Nix) 2.8.0": (Flavour.NIX, (2, 8, 0), "Nix 2.8.0"),
    "nix (Nix) 2.34.8\n": (Flavour.NIX, (2, 34, 8), "Nix 2.34.8"),
    "nix (Nix) 2.3": (Flavour.NIX, (2, 3, 0), "Nix 2.3"),
    "nix-daemon (Nix) 2.26.3": (Flavour.NIX, (2, 26, 3), "Nix 2.26.3"),
    "nix (Lix, like Nix) 2.95.0": (Flavour.LIX, (2, 95, 0), "Lix 2.95.0"),
    "nix (Lix, like Nix) 2.95.0\nSystem type: x86_64-linux": (
        Flavour.LIX,
        (2, 95, 0),
        "Lix 2.95.0",
    ),
    "nix (Determinate Nix 3.20.0) 2.34.6": (
        Flavour.DETERMINATE,
        (2, 34, 6),
        "Determinate Nix 3.20.0 (Nix 2.34.6)",
    ),
}


@pytest.mark.parametrize("printed", PRINTED)
def test_every_make_of_nix_is_known_by_what_it_prints(printed: str) -> None:
    version = parse_version(printed)
    assert version is not None
    assert (version.flavour, version.number, version.name) == PRINTED[printed]
    assert not version.early


def test_what_was_made_before_a_release_is_not_that_release() -> None:
    version = parse_version("nix (Nix) 2.34.0pre20260101_1234567")
    assert version is not None
    assert (version.number, version.early) == ((2, 34, 0), True)
    assert version.name == "Nix 2.34.0pre20260101_1234567"


@pytest.mark.parametrize(
    "printed",
    ["", "2.8.0", "nix 2.8.0", "nix (Nix)", "nix (Nix) two", "nix (Guix) 1.4.0", "nix () 2.8.0"],
)
def test_what_is_not_understood_is_no_version(printed: str) -> None:
    assert parse_version(printed) is None


@given(st.text())
def test_whatever_is_printed_it_is_read_or_not_understood(printed: str) -> None:
    version = parse_version(printed)
    assert version is None or len(version.number) == 3


@given(st.tuples(*[st.integers(0, 999)] * 3))
def test_every_number_comes_through(number: tuple[int, int, int]) -> None:
    version = parse_version(f"nix (Nix) {number[0]}.{number[1]}.{number[2]}")
    assert version is not None
    assert version.number == number
