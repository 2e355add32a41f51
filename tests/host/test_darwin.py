# SPDX-License-Identifier: MIT
"""The logic of the macOS half that needs no Mac: what it makes of what the system would say."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from stand_in import write_program
from storewarden.host import darwin

RECORDED = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
/dev/disk3s6 on /System/Volumes/VM (apfs, local, noexec, journaled, noatime, nobrowse)
/dev/disk3s7 on /nix (apfs, local, journaled, noatime, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@server/share on /Volumes/my share (1) (smbfs, nodev, nosuid, mounted by me)
tmpfs on /private/x (tmpfs)
"""


def xucred(version: int, uid: int) -> bytes:
    """A `struct xucred` as sys/ucred.h lays it out: 4 + 4 + 2 + 2 of padding + 16 gids."""
    return struct.pack("=IIhh16I", version, uid, 1, 0, *range(16))


@pytest.mark.parametrize("uid", [0, 501, 2**31, 2**32 - 2])
def test_the_peers_uid_is_read_from_its_credentials(uid: int) -> None:
    assert darwin.peer_uid(xucred(0, uid)) == uid


def test_credentials_of_another_version_or_size_are_refused() -> None:
    good = xucred(0, 501)
    assert len(good) == 76
    for bad in (xucred(1, 501), good[:-1], good + b"\0", b"", good[:8]):
        with pytest.raises(OSError, match="LOCAL_PEERCRED"):
            darwin.peer_uid(bad)


def test_mounts_are_read_from_what_the_program_prints() -> None:
    assert darwin.parse_mounts(RECORDED) == [
        ("/", "apfs"),
        ("/dev", "devfs"),
        ("/System/Volumes/VM", "apfs"),
        ("/nix", "apfs"),
        ("/System/Volumes/Data/home", "autofs"),
        ("/Volumes/my share (1)", "smbfs"),
        ("/private/x", "tmpfs"),
    ]


@pytest.mark.parametrize(
    "line", ["rubbish", "/dev/disk3s7 on /nix", "/dev/disk3s7 (apfs)", "a on /with\nnewline (apfs)"]
)
def test_a_line_that_is_not_understood_makes_all_mounts_unknown(line: str) -> None:
    assert darwin.parse_mounts(f"{RECORDED}{line}\n{RECORDED}") is None


def test_a_mount_program_that_fails_or_is_absent_is_unknown(tmp_path: Path) -> None:
    assert darwin.mounts(f"{tmp_path}/absent") is None
    assert darwin.mounts(write_program(f"{tmp_path}/fails", "exit 1\n")) is None
    works = write_program(f"{tmp_path}/works", "echo '/dev/disk3s7 on /nix (apfs, local)'\n")
    assert darwin.mounts(works) == [("/nix", "apfs")]


def listing(
    by_kind: dict[tuple[int, int], list[int] | None],
) -> Callable[[int, int], list[int] | None]:
    """What proc_listpids would say, by kind (4: effective uid, 5: real uid) and uid."""
    return lambda kind, uid: by_kind.get((kind, uid), [])


def test_processes_of_effective_and_real_uid_are_found_once_each() -> None:
    said = listing({(4, 301): [20, 10], (5, 301): [10, 30], (4, 302): [40], (5, 303): [50]})
    assert darwin.processes_of([301], said) == [10, 20, 30]
    assert darwin.processes_of([301, 302], said) == [10, 20, 30, 40]
    assert darwin.processes_of([304], said) == []
    assert darwin.processes_of([], said) == []


@pytest.mark.parametrize("silent", [(4, 301), (5, 301), (4, 302), (5, 302)])
def test_one_question_without_an_answer_makes_all_unknown(silent: tuple[int, int]) -> None:
    said = listing({(4, 301): [10], (5, 301): [10], silent: None})
    assert darwin.processes_of([301, 302], said) is None


def test_nix_darwin_is_known_by_what_it_makes(tmp_path: Path) -> None:
    assert darwin.declared_by(f"{tmp_path}/darwin-version") == ""
    Path(tmp_path, "darwin-version").touch()
    assert darwin.declared_by(f"{tmp_path}/darwin-version") == "nix-darwin"


def test_who_holds_a_lock_is_always_unknown() -> None:
    assert darwin.lock_holders() is None
    assert darwin.lock_holders("/proc/locks") is None


def test_a_writable_store_is_left_as_it_is(tmp_path: Path) -> None:
    darwin.make_writable(str(tmp_path))
    assert (darwin.FIRST_ALLOCATED, darwin.ALLOCATED, darwin.PER_SLOT) == (56930, 128, 1)
