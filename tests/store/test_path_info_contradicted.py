# SPDX-License-Identifier: MIT
"""An answer of Nix that contradicts itself is never taken for "not valid"."""

from contextlib import suppress
from pathlib import Path

import pytest

from stand_in import write_program
from storewarden.errors import BadMessageError
from storewarden.store.nix import Nix, ask, parse_path_info
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Known

STORE = StoreDir("/nix/store")
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
