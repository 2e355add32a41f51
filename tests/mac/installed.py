# SPDX-License-Identifier: MIT
"""The service on a Mac: set up, at work, and what is on the disk of it."""

import os
import re
from collections.abc import Iterator
from typing import Any

from json_documents import checked
from mac.machine import Done, Mac
from real import namespace as ns
from real.rig import answers
from storewarden.host.darwin import SOCKET
from storewarden.setup import darwin

HELPER = f"system/{darwin.HELPER}"
WATCHER = f"system/{darwin.WATCHER}"
AUDIT_LOG = "/private/var/log/storewarden"
_WRITTEN_BY_NIX_AND_US = (
    *("/private/tmp/", "/private/var/db/standin/", "/private/var/log/standin"),
    "/nix/var/nix/db/db.sqlite-",  # there while nix-daemon has it open
)


def set_up(mac: Mac, *words: str) -> Done:
    """`sudo storewarden setup WORDS`, which must end well."""
    done = mac.warden("setup", *words, user="root", seconds=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def status(mac: Mac) -> dict[str, Any]:
    """What `storewarden status --json` says, as the person."""
    done = mac.warden("status", "--json")
    document: dict[str, Any] = checked(done.stdout, "status")["status"]
    return document


def works(mac: Mac) -> None:
    """Return once the watcher has swept and the helper listens."""
    ns.wait_until(lambda: mac.warden("status").returncode == 0, "the service")
    ns.wait_until(lambda: answers(mac.outside(SOCKET)), "the helper")


def job(mac: Mac, target: str) -> str | None:
    """What launchctl prints of that job, or None if launchd does not know it."""
    done = mac.run("launchctl", "print", target)
    assert done.returncode in {0, 113, 125}, done.stderr
    return done.stdout if done.returncode == 0 else None


def pid(mac: Mac, target: str) -> int | None:
    """The process of that job."""
    found = re.search(r"^\tpid = (\d+)$", job(mac, target) or "", re.MULTILINE)
    return int(found[1]) if found else None


def outcomes(mac: Mac) -> dict[str, str]:
    """What the audit log says became of each entry."""
    done = mac.warden("audit", "show", "--json", user="root")
    assert done.returncode == 0, done.stderr
    records = checked(done.stdout, "audit", "show")["records"]
    return {one["name"]: one["status"] for one in records if one["action"] == "result"}


def files(mac: Mac) -> dict[str, tuple[int, int, int]]:
    """Mode, uid and gid of all that lies on its disks, but for what is ours or passes."""
    found = {}
    for top in (mac.root.top, mac.root.volume):
        for path in _walk(top):
            name = path.removeprefix(top)
            if not name.startswith(_WRITTEN_BY_NIX_AND_US):
                state = os.lstat(path)
                found[name] = (state.st_mode, state.st_uid, state.st_gid)
    return found


def _walk(top: str) -> Iterator[str]:
    for place, directories, names in os.walk(top):
        yield from (f"{place}/{name}" for name in (*directories, *names))
