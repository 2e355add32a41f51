# SPDX-License-Identifier: MIT
"""Where nothing is to be set up, and that only one does it at a time."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from storewarden import host
from storewarden.copyable import DECLARE
from storewarden.setup.trust import SetupError, missing_directories

LOCK = "/var/run/storewarden-setup.lock"
SYSTEMD = "/run/systemd/system"


@contextmanager
def at_work(top: str, *, dry_run: bool) -> Iterator[None]:
    """While no other setup changes this machine; `SetupError` where none is to be done here."""
    _refuse(top, dry_run=dry_run)
    try:
        with nullcontext() if top or dry_run else _alone():
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the next setup completes it") from None


@contextmanager
def _alone() -> Iterator[None]:
    missing_directories(os.path.dirname(LOCK))
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SetupError(f"another setup is at work (it holds {LOCK})") from None
    try:
        yield
    finally:
        os.close(fd)


def _refuse(top: str, *, dry_run: bool) -> None:
    if top:
        if top == "/":
            raise SetupError("--root is a staging directory; for this machine, leave it out")
        if not os.path.isdir(top):
            raise SetupError(f"{top} is not a directory; make it first")
        return
    if system := host.declared_by():
        raise SetupError(
            f"{system} owns the configuration of this machine; there the module does this:"
            f" {DECLARE}"
        )
    if sys.platform == "linux" and not os.path.isdir(SYSTEMD):
        raise SetupError(
            "no systemd runs here, so there is nothing to set up; in a container, start it"
            " yourself, as root: storewarden watch"
        )
    if os.geteuid() != 0 and not dry_run:
        raise SetupError("only root can set it up: sudo storewarden setup (or look: --dry-run)")
