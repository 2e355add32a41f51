# SPDX-License-Identifier: MIT
"""Where the lab keeps its roots, which there are, and why the lab cannot be used here if so."""

import os
import shutil
import sys

from real.furniture import CHECKOUT

SUITES = ("bookworm", "trixie", "forky")
REQUIRED = os.environ.get("STOREWARDEN_REQUIRE_LAB") == "1"
_PROGRAMS = "systemd-nspawn unshare nsenter setpriv findmnt"


def lab() -> str:
    """The directory of all roots; `make-roots` says the same in bash."""
    cache = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return os.environ.get("STOREWARDEN_LAB") or f"{cache}/storewarden-lab"


def root(suite: str) -> str:
    return f"{lab()}/{suite}"


def missing(suite: str) -> str | None:
    """Why that root cannot be booted here, in plain words, or None."""
    if sys.platform != "linux":
        return "the lab is Linux's; there is none to make here"
    if os.geteuid() != 0:
        return "only root can boot the lab's roots: sudo make lab"
    if not os.path.exists(f"{root(suite)}/.made-by"):
        return f"the root {suite} is not made yet: make lab"
    for program in _PROGRAMS.split():
        if shutil.which(program) is None:
            return f"there is no {program} here: make lab installs it"
    if not os.stat(f"{CHECKOUT}/src/storewarden/__init__.py").st_mode & 0o004:
        return "ordinary users may not read the files of this checkout (made with umask 077?)"
    return None
