# SPDX-License-Identifier: MIT
"""What owners show as where a user namespace does not know them, and who listens at a socket."""

import os
import socket
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("this is the Linux half", allow_module_level=True)

from helper.child import among_own_processes, needs_root
from storewarden.host import listener
from storewarden.host.linux import hidden_uid


@pytest.mark.parametrize(
    ("table", "uid"),
    [
        ("         0          0 4294967295\n", None),
        ("0 100000 65536\n", 65534),
        ("1000 1000 1\n", 65534),
        ("", 65534),
        ("nonsense\n", 65534),
    ],
)
def test_owners_are_hidden_unless_every_uid_has_a_name(
    tmp_path: Path, table: str, uid: int | None
) -> None:
    (tmp_path / "uid_map").write_text(table, encoding="ascii")
    assert hidden_uid(f"{tmp_path}/uid_map") == uid


def test_where_the_table_cannot_be_read_owners_may_be_hidden(tmp_path: Path) -> None:
    assert hidden_uid(f"{tmp_path}/absent") == 65534


def test_who_listens_is_told_and_nobody_is_nobody(tmp_path: Path) -> None:
    place = f"{tmp_path}/socket"
    assert listener(place) is None
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(place)
        daemon.listen()
        assert listener(place) == (os.geteuid(), os.getpid())
    assert listener(place) is None


@needs_root
def test_who_listens_outside_this_pid_namespace_has_no_pid(tmp_path: Path) -> None:
    place = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(place)
        daemon.listen()
        assert among_own_processes(lambda: listener(place)) == [os.geteuid(), None]
