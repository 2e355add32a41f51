# SPDX-License-Identifier: MIT
"""A Nix that has ended, and what it started has not."""

from pathlib import Path

from stand_in import ends, write_program
from storewarden.store.nix import Nix, ask
from storewarden.store.paths import StoreDir, StorePath
from storewarden.store.store import Known


def test_what_nix_left_behind_is_ended_where_it_holds_the_answer_back(tmp_path: Path) -> None:
    write_program(f"{tmp_path}/nix", f"sleep 60 & echo $! > {tmp_path}/pid; exit 0\n")
    write_program(f"{tmp_path}/nix-store", "exit 1\n")
    path = StorePath(f"{'0' * 32}-x")
    nix = Nix(f"{tmp_path}/nix", StoreDir("/nix/store"), f"{tmp_path}/state", timeout=0.4)
    assert ask(nix, [path])[path].known is Known.UNKNOWN
    assert ends(int((tmp_path / "pid").read_text()))
