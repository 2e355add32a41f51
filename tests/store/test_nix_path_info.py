# SPDX-License-Identifier: MIT
"""What `nix path-info --json` says, in the shapes it was recorded in; "no" only if plainly said."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stand_in import write_program
from storewarden.errors import BadMessageError
from storewarden.nix_queries import Registration, registration
from storewarden.store.nix import Nix, PathInfo, ask, parse_path_info
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Known

STORE = StoreDir("/nix/store")
VALID = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")
DEBRIS = StorePath("ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev")
FULL_VALID, FULL_DEBRIS = STORE.join(VALID.base_name), STORE.join(DEBRIS.base_name)
HASH = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
DERIVER = "233sb81zil031fiiqqrxycgpf2k3br7g-test.drv"
REGISTERED = Registration(
    23423,
    STORE.join(DERIVER),
    120,
    "fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh",
)
OLD: dict[str, object] = {
    "ca": REGISTERED.content_address,
    "deriver": REGISTERED.deriver,
    "narHash": HASH,
    "narSize": 120,
    "references": [],
    "registrationTime": 23423,
}
CONTENT = {"method": "nar", "hash": "sha256-EMIJ+giQ/gLIWoxmPKjno3zHZrxbGymgzGGyZvZBIdM="}
"""The same hash (src/libstore-tests/data/path-info of Nix)."""
NEW = OLD | {"ca": CONTENT, "deriver": DERIVER}
RECORDED = {
    "2.3 to 2.18, and Lix": [
        OLD | {"path": FULL_VALID},
        {"path": FULL_DEBRIS, "valid": False},
    ],
    "2.18 with valid set": [
        OLD | {"path": FULL_VALID, "valid": True},
        {"path": FULL_DEBRIS, "valid": False},
    ],
    "2.19 on": {
        FULL_VALID: OLD | {"ultimate": True},
        FULL_DEBRIS: None,
    },
    "--json-format 2": {
        "info": {VALID.base_name: NEW | {"version": 2}, DEBRIS.base_name: None},
        "storeDir": "/nix/store",
        "version": 2,
    },
    "--json-format 3": {
        "info": {
            VALID.base_name: NEW | {"narHash": {"algorithm": "sha256", "hash": "x"}},
            DEBRIS.base_name: None,
        },
        "storeDir": "/nix/store",
        "version": 3,
    },
}


def validity(answer: bytes) -> dict[StorePath, Known]:
    """What an answer says of each path that it plainly says something of."""
    infos: dict[StorePath, PathInfo | None] = {}
    with suppress(BadMessageError):
        infos = parse_path_info(answer, STORE)
    return {path: Known.NO if info is None else Known.YES for path, info in infos.items()}


@pytest.mark.parametrize("version", RECORDED)
def test_every_recorded_shape_is_understood(version: str) -> None:
    answer = json.dumps(RECORDED[version]).encode()
    assert validity(answer) == {VALID: Known.YES, DEBRIS: Known.NO}


@pytest.mark.parametrize("version", RECORDED)
def test_in_every_shape_who_asks_for_validity_and_who_for_a_registration_hear_the_same(
    tmp_path: Path, version: str
) -> None:
    (tmp_path / "answer").write_text(json.dumps(RECORDED[version]))
    nix = Nix(
        write_program(f"{tmp_path}/nix", f"cat {tmp_path}/answer\n"), STORE, f"{tmp_path}/state"
    )
    answers = ask(nix, [VALID, DEBRIS])
    assert [answers[path].known for path in (VALID, DEBRIS)] == [Known.YES, Known.NO]
    assert registration(nix, VALID) == REGISTERED
    assert registration(nix, DEBRIS) is None


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
    assert validity(answer) == {}


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
        assert validity(json.dumps(document).encode()) == {}


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
    known = validity(json.dumps({FULL_DEBRIS: said}).encode()).get(DEBRIS)
    members = said if isinstance(said, dict) else {}
    invalid = said is None or members.get("valid") is False
    if "narHash" not in members:  # else it says both
        assert (known is Known.NO) == invalid
    assert known is not Known.NO or invalid


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(answer: bytes) -> None:
    assert not validity(answer)


# An answer of Nix that contradicts itself is never taken for "not valid".


ONE = StorePath("ghnpxgmm86pibjgnf0x49b5qgfcf8yxa-test-dev")
TWO = StorePath("x80vbsl3hs31md8vk95ibvyjii8dy325-test")
FULL = STORE.join(ONE.base_name)


@pytest.mark.parametrize(
    "answer",
    [
        f'{{"{FULL}": {{"narHash": "x"}}, "{FULL}": null}}',
        f'[{{"path": "{FULL}", "narHash": "x"}}, {{"path": "{FULL}", "valid": false}}]',
        f'[{{"path": "{FULL}", "narHash": "x", "valid": false}}]',
        f'{{"{FULL}": {{"narHash": "x"}}, "{ONE.base_name}": null}}',
    ],
)
def test_an_answer_that_says_both_is_no_no(answer: str) -> None:
    with suppress(BadMessageError):
        assert parse_path_info(answer.encode(), STORE).get(ONE, {}) is not None


def test_what_path_info_called_valid_is_not_invalid_because_nix_store_says_so(
    tmp_path: Path,
) -> None:
    write_program(f"{tmp_path}/nix", f'echo \'{{"{FULL}": {{"narHash": "x"}}}}\'\n')
    write_program(f"{tmp_path}/nix-store", f"echo {FULL}\n")
    answers = ask(Nix(f"{tmp_path}/nix", STORE, f"{tmp_path}/state"), [ONE, TWO])
    assert answers[ONE].known is not Known.NO
