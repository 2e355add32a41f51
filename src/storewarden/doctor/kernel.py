# SPDX-License-Identifier: MIT
"""What runs below everything, and whether it lets root make what a sandbox is made of."""

import os
import sys

from storewarden import host
from storewarden.daemon.watch import emulated
from storewarden.doctor.facts import Kernel
from storewarden.store.fact import Known

_SYS_ADMIN = 1 << 21
"""CAP_SYS_ADMIN, in the masks of /proc/PID/status."""


def look_at_kernel() -> Kernel:
    """The kernel of this machine, container or sandbox."""
    if sys.platform == "darwin":
        return Kernel(darwin=True, declared=host.declared_by())
    return Kernel(
        darwin=False,
        emulated=emulated(),
        systemd=os.path.isdir("/run/systemd/system"),  # sd_booted(3)
        namespaces=namespaces(),
        declared=host.declared_by(),
    )


def namespaces(proc: str = "/proc") -> Known:
    """Whether a root here may make mount and pid namespaces; nothing is tried.

    He may with CAP_SYS_ADMIN; without it by way of a user namespace, unless those are off. In a
    container a filter of system calls can forbid those too, and that cannot be read.
    """
    if not os.path.exists(f"{proc}/self/ns/mnt") or not os.path.exists(f"{proc}/self/ns/pid"):
        return Known.NO if os.path.exists(f"{proc}/self/status") else Known.UNKNOWN
    status = _fields(f"{proc}/self/status")
    try:
        bounding, filtered = int(status["CapBnd"], 16), status.get("Seccomp", "0") != "0"
    except (KeyError, ValueError):
        return Known.UNKNOWN
    if bounding & _SYS_ADMIN:
        return Known.UNKNOWN if filtered else Known.YES
    if _most_user_namespaces(proc) == 0:
        return Known.NO
    return Known.UNKNOWN


def _most_user_namespaces(proc: str) -> int | None:
    """How many there may be; 0 also where the kernel has none, None if it does not say."""
    if not os.path.exists(f"{proc}/self/ns/user"):
        return 0
    try:
        with open(f"{proc}/sys/user/max_user_namespaces", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _fields(place: str) -> dict[str, str]:
    try:
        with open(place, encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return {}
    return {name: value.strip() for name, colon, value in lines if colon}
