# SPDX-License-Identifier: MIT
"""Which lock files cover the build of a derivation, read from its `.drv` file by descriptor."""

import os
import re
import stat

from storewarden.store.entries import look
from storewarden.store.errors import BadStorePathError
from storewarden.store.paths import StoreDir, StorePath, output_lock, parse_lock_name, path_lock

CHROOT_SUFFIX = ".chroot"
_OUTPUT = r'\("([^"\\]+)","([^"\\]*)","[^"\\]*","[^"\\]*"\)'
_OUTPUTS = re.compile(rf"Derive\(\[{_OUTPUT}(?:,{_OUTPUT})*\],\[", re.ASCII)
_MOST = 1 << 20


def chroot_locks(store_fd: int, base_name: str, store_dir: StoreDir) -> tuple[str, ...] | None:
    """Base names of all output locks of the derivation that a chroot is called after.

    None where they cannot be told: the `.drv` is gone, is not the store owner's (a build user
    may put a file of any name there), or is not the plain `Derive([…` of derivations.cc.
    """
    derivation = StorePath.maybe(base_name.removesuffix(CHROOT_SUFFIX))
    if derivation is None or not derivation.is_derivation:
        return None
    try:
        outputs = outputs_of(store_fd, derivation)
        locks = {output_lock(derivation, output) for output, _ in outputs}
        locks |= {path_lock(store_dir.parse(path)) for _, path in outputs if path}
    except (OSError, ValueError, BadStorePathError):
        return None
    # An output's name becomes part of a file's name here: it must be one, and no path.
    return tuple(sorted(locks)) if locks and all(map(parse_lock_name, locks)) else None


def outputs_of(store_fd: int, derivation: StorePath) -> list[tuple[str, str]]:
    """Name and full path (empty for a floating output) of each output, from the `.drv` file.

    `OSError` or `ValueError` where it is not there, or not to be believed.
    """
    found = look(store_fd, derivation.base_name)
    if found is None or not stat.S_ISREG(found.mode) or found.uid != os.fstat(store_fd).st_uid:
        raise ValueError("no derivation of the store owner's")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(derivation.base_name, flags, dir_fd=store_fd), encoding="utf-8") as file:
        head = _OUTPUTS.match(file.read(_MOST))
    if head is None:
        raise ValueError("not a plain derivation")
    return re.findall(_OUTPUT, head[0])
