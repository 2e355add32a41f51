# SPDX-License-Identifier: MIT
"""Whether the watcher's user reaches a helper that works: asked the way the watcher asks."""

import os
import pwd
import subprocess
import sys

from storewarden.repair import HelperUnavailableError
from storewarden.setup import darwin, linux
from storewarden.setup.trust import SetupError

_SECONDS = 60
ASK = """
import sys
from storewarden.repair import remove_through
from storewarden.store.entries import EntryKind
from storewarden.errors import StorewardenError
from storewarden.protocol import RemoveRequest
name = "0" * 32 + "-storewarden-setup.lock"
try:
    outcomes = remove_through(sys.argv[1])([RemoveRequest(name, EntryKind.LOCK, 1, 1)])
    print(*[outcome.status for outcome in outcomes])
except StorewardenError as cause:
    print(cause)
"""
"""Asks for the removal of what is not there. Whoever answers that has read all it needs."""


def check_reach(python: str) -> None:
    """Return if so; else `HelperUnavailableError`, or `SetupError` if the units are down."""
    if sys.platform == "darwin":
        owner, path = darwin.person(os.environ).name, darwin.SOCKET
    else:
        owner, path = linux.USER, linux.SOCKET_PATH
        if down := linux.inactive():
            raise SetupError(
                f"set up, but not at work: {', '.join(down)}; see: journalctl -u {down[0]}"
            )
    user = pwd.getpwnam(owner)
    try:
        done = subprocess.run(
            [python, "-I", "-B", "-c", ASK, path],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
    except (OSError, subprocess.SubprocessError) as cause:
        raise HelperUnavailableError(f"set up, but the helper does not answer: {cause}") from cause
    answer = (done.stdout.strip() or done.stderr.strip() or "it said nothing").splitlines()[-1]
    if answer != "vanished":
        raise HelperUnavailableError(f"set up, but the helper does not work yet: {answer}")
