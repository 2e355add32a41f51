# SPDX-License-Identifier: MIT
"""A Nix that never answers: one bounded wait, and nothing of it left running."""

from pathlib import Path

import pytest

from stand_in import ends, write_program
from storewarden.store.nix import Nix, ask
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Known

STORE = StoreDir("/nix/store")
FAILS = "exit 1\n"


@pytest.mark.parametrize("hangs", ["nix", "nix-store"])
def test_a_hanging_nix_is_ended_with_all_it_started_after_one_wait(
    tmp_path: Path, hangs: str
) -> None:
    bodies = {"nix": FAILS, "nix-store": FAILS}
    bodies[hangs] = f"sleep 300 & echo $! $$ >> {tmp_path}/pids; wait\n"
    for name, body in bodies.items():
        write_program(f"{tmp_path}/{name}", body)
    paths = [StorePath(f"{number:032d}-x") for number in range(200)]
    answers = ask(Nix(f"{tmp_path}/nix", STORE, f"{tmp_path}/state", timeout=2.0), paths)
    assert {fact.known for fact in answers.values()} == {Known.UNKNOWN}
    assert all("did not answer" in answers[path].detail for path in (paths[0], paths[-1]))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2, "it was asked, and waited for, more than once"
    assert all(map(ends, pids))
