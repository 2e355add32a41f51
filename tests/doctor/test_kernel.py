# SPDX-License-Identifier: MIT
"""Whether root may make namespaces here, told by a /proc that is written for it."""

from pathlib import Path

import pytest

from storewarden.doctor.kernel import namespaces
from storewarden.store.fact import Known

ALL, NONE = "000001ffffffffff", "0000000000000000"


def write_proc(directory: Path, status: str, most: str | None, kinds: str = "mnt pid user") -> str:
    """A /proc with one process, and with those kinds of namespaces."""
    (directory / "self/ns").mkdir(parents=True)
    (directory / "sys/user").mkdir(parents=True)
    (directory / "self/status").write_text(status)
    for kind in kinds.split():
        (directory / "self/ns" / kind).write_text("")
    if most is not None:
        (directory / "sys/user/max_user_namespaces").write_text(most)
    return str(directory)


@pytest.mark.parametrize(
    ("status", "most", "known"),
    [
        (f"CapBnd:\t{ALL}\nSeccomp:\t0\n", "100", Known.YES),
        (f"CapBnd:\t{ALL}\n", None, Known.YES),
        (f"CapBnd:\t{ALL}\nSeccomp:\t2\n", "100", Known.UNKNOWN),
        (f"CapBnd:\t{NONE}\nSeccomp:\t0\n", "100", Known.UNKNOWN),
        (f"CapBnd:\t{NONE}\nSeccomp:\t0\n", "0\n", Known.NO),
        (f"CapBnd:\t{NONE}\n", None, Known.UNKNOWN),
        ("CapBnd:\tx\n", "0", Known.UNKNOWN),
        ("Name:\tcat\n", "0", Known.UNKNOWN),
    ],
)
def test_they_may_be_made_or_not_or_that_cannot_be_told(
    tmp_path: Path, status: str, most: str | None, known: Known
) -> None:
    assert namespaces(write_proc(tmp_path, status, most)) is known


def test_a_kernel_without_user_namespaces_leaves_only_the_capability(tmp_path: Path) -> None:
    proc = write_proc(tmp_path, f"CapBnd:\t{NONE}\n", None, kinds="mnt pid")
    assert namespaces(proc) is Known.NO


def test_a_kernel_without_mount_namespaces_makes_no_sandbox(tmp_path: Path) -> None:
    proc = write_proc(tmp_path, f"CapBnd:\t{ALL}\n", "100", kinds="user")
    assert namespaces(proc) is Known.NO


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert namespaces(f"{tmp_path}/none") is Known.UNKNOWN
