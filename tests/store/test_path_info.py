# SPDX-License-Identifier: MIT
"""What `nix path-info --json` says, in the shapes it was recorded in; "no" only if plainly said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storewarden.store.fact import Known
from storewarden.store.nix import parse_path_info
from storewarden.store.paths import StoreDir, StorePath

STORE = StoreDir("/nix/store")
VALID = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")
DEBRIS = StorePath("ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev")
FULL_VALID, FULL_DEBRIS = STORE.join(VALID.base_name), STORE.join(DEBRIS.base_name)
HASH = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
RECORDED = {
    "2.3 to 2.18, and Lix": [
        {"narHash": HASH, "narSize": 120, "path": FULL_VALID, "references": []},
        {"path": FULL_DEBRIS, "valid": False},
    ],
    "2.18 with valid set": [
        {"narHash": HASH, "narSize": 120, "path": FULL_VALID, "valid": True},
        {"path": FULL_DEBRIS, "valid": False},
    ],
    "2.19 on": {
        FULL_VALID: {"narHash": HASH, "narSize": 120, "references": [], "ultimate": True},
        FULL_DEBRIS: None,
    },
    "--json-format 2": {
        "info": {VALID.base_name: {"narHash": HASH, "version": 2}, DEBRIS.base_name: None},
        "storeDir": "/nix/store",
        "version": 2,
    },
    "--json-format 3": {
        "info": {
            VALID.base_name: {"narHash": {"algorithm": "sha256", "hash": "x"}},
            DEBRIS.base_name: None,
        },
        "storeDir": "/nix/store",
        "version": 3,
    },
}


@pytest.mark.parametrize("version", RECORDED)
def test_every_recorded_shape_is_understood(version: str) -> None:
    answer = json.dumps(RECORDED[version]).encode()
    assert parse_path_info(answer, STORE) == {VALID: Known.YES, DEBRIS: Known.NO}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"null",
        b"1",
        b'"text"',
        b"{",
        b"{}",
        b"[]",
        b'{"info": {}}',
        b'{"info": null}',
        b"[null, 1, []]",
        b"\xff\xfe",
        b"[" * 100_000,
        b"warning: something\n{}",
        b'[{"valid": false}]',
        b'[{"path": null, "valid": false}]',
        b'{"": null, "/": null, "/nix/store": null, "/nix/store/": null}',
        f'{{"/other/store/{DEBRIS.base_name}": null}}'.encode(),
        f'{{"{FULL_DEBRIS}/bin": null}}'.encode(),
        f'{{"{FULL_DEBRIS}\\n": null}}'.encode(),
        f'{{"info": [{{"path": "{FULL_DEBRIS}", "valid": false}}]}}'.encode(),
    ],
)
def test_what_is_not_understood_says_nothing(answer: bytes) -> None:
    assert parse_path_info(answer, STORE) == {}


@pytest.mark.parametrize(
    "said",
    [
        {},
        [],
        False,
        0,
        "",
        {"valid": None},
        {"valid": 0},
        {"valid": "false"},
        {"valid": True},
        {"narHash": None},
        {"narHash": 1},
        {"error": "no"},
    ],
)
def test_what_is_neither_plainly_valid_nor_plainly_invalid_is_left_out(said: object) -> None:
    for document in ({FULL_DEBRIS: said}, {"info": {DEBRIS.base_name: said}}):
        assert parse_path_info(json.dumps(document).encode(), STORE) == {}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["valid", "narHash", "path", "info"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(JSON_VALUES)
def test_only_null_or_valid_false_is_a_no(said: object) -> None:
    known = parse_path_info(json.dumps({FULL_DEBRIS: said}).encode(), STORE).get(DEBRIS)
    members = said if isinstance(said, dict) else {}
    invalid = said is None or members.get("valid") is False
    if "narHash" not in members:  # else it says both
        assert (known is Known.NO) == invalid
    assert known is not Known.NO or invalid


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(answer: bytes) -> None:
    assert not parse_path_info(answer, STORE)
