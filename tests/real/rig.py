# SPDX-License-Identifier: MIT
"""A whole Nix of one's own for tests: store, database, daemon, build users, all private.

Everything lies below one temporary directory: `nix` is bound on /nix, `etc/*` over their
namesakes in /etc, parts of the checkout in `source`, where also an ordinary user can read them.
"""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, SIGSTOP

from real import namespace as ns
from real import unshared
from real.furniture import (
    BUILD_GROUP,
    BUILD_USERS,
    PLACES,
    closed_to_others,
    furnish,
    mounts,
    own_python,
)

_PROGRAMS = "nix-daemon nix-store nix-build nix-instantiate unshare nsenter setpriv flock timeout"


@dataclass(frozen=True, slots=True)
class Rig:
    base: str
    namespace: ns.Namespace
    nix_version: tuple[int, ...]
    root: str
    """The directory that /nix lies in, seen from outside."""
    etc: str
    """What is at /etc there, seen from outside."""
    user: str
    """An ordinary user, who may build."""
    python: str
    """The interpreter that storewarden runs with."""
    build_users: Mapping[int, str]
    """Uid to name."""
    build_group: int

    @property
    def store(self) -> str:
        """Nix's /nix/store, seen from outside."""
        return f"{self.root}/nix/store"

    @property
    def state(self) -> str:
        """Nix's /nix/var/nix, seen from outside."""
        return f"{self.root}/nix/var/nix"

    def outside(self, path: str) -> str:
        """Where a path below /nix is seen from outside."""
        assert path.startswith("/nix/"), path
        return self.root + path


def missing() -> str | None:
    """Why real Nix cannot be driven here, in plain words, or None."""
    if sys.platform != "linux":
        return "real Nix is driven in Linux namespaces"
    if os.geteuid() != 0:
        return "real Nix is driven by root, in namespaces of its own"
    for program in _PROGRAMS.split():
        if shutil.which(program) is None:
            return f"there is no {program} (on Debian: apt-get install nix-bin util-linux)"
    for place in ("/nix", "/etc/nix"):
        if not os.path.isdir(place):
            return f"there is no directory {place} to mount a private one over"
    if closed_to_others():
        return "ordinary users may not read the files of this checkout (made with umask 077?)"
    return unshared.refusal()


@contextlib.contextmanager
def opened_rig() -> Iterator[Rig]:
    """A rig; its daemon runs only after `reset`."""
    base = tempfile.mkdtemp(prefix="storewarden-rig-")
    try:
        furnish(base)
        namespace = unshared.open_namespace(base, mounts(base))
        try:
            yield Rig(
                base,
                namespace,
                nix_version(namespace),
                root=base,
                etc=f"{base}/machine-etc",
                user="nobody",
                python=own_python(f"{base}/source"),
                build_users=BUILD_USERS,
                build_group=BUILD_GROUP,
            )
        finally:
            ns.end_everything(namespace)
            unshared.close(namespace)
    finally:
        # Not shutil.rmtree: it gives up at trees as deep as those that the tests make.
        subprocess.run(["rm", "-rf", base], check=True)


def nix_version(namespace: ns.Namespace) -> tuple[int, ...]:
    """Of the Nix in it, as far as it decides what Nix does."""
    said = ns.run(namespace, ["nix-store", "--version"]).stdout.split()[-1]
    return tuple(int(part) for part in said.split(".")[:2])


def reset(rig: Rig) -> None:
    """An empty store, no process of before, and a daemon that answers."""
    ns.end_everything(rig.namespace)
    # The tests' own mounts all lie on the store.
    ns.run(rig.namespace, ["sh", "-c", "while umount /nix/store; do :; done"])
    for place in PLACES:
        subprocess.run(["rm", "-rf", *_below(f"{rig.base}/{place}")], check=True)
    with open(f"{rig.base}/outside/file", "w", encoding="ascii") as file:
        file.write("not in the store\n")
    made = ns.run(rig.namespace, ["nix-store", "--init"])
    assert made.returncode == 0, made.stderr
    start_daemon(rig)


def start_daemon(rig: Rig) -> None:
    """Start nix-daemon, and return when it answers."""
    log = f"{rig.base}/logs/daemon"
    ns.start(rig.namespace, ["nix-daemon", "--daemon"], log=log)
    ns.wait_until(lambda: answers(f"{rig.state}/daemon-socket/socket"), "nix-daemon")


def kill_daemon(rig: Rig) -> None:
    """SIGKILL to the listening daemon: its socket stays behind and refuses connections."""
    ns.kill(rig.namespace, SIGKILL, daemon_pid(rig))
    ns.wait_until(lambda: not answers(f"{rig.state}/daemon-socket/socket"), "the end of nix-daemon")


def stop_daemon(rig: Rig) -> None:
    """SIGSTOP: connections are taken by the kernel and never answered."""
    ns.kill(rig.namespace, SIGSTOP, daemon_pid(rig))


def continue_daemon(rig: Rig) -> None:
    """SIGCONT after `stop_daemon`."""
    ns.kill(rig.namespace, SIGCONT, daemon_pid(rig))


def daemon_pid(rig: Rig) -> int:
    """The listening daemon: the one that came in from outside, where its parent is."""
    found = [
        process.pid
        for process in ns.processes(rig.namespace)
        if process.command == "nix-daemon" and process.parent == 0
    ]
    assert len(found) == 1, found
    return found[0]


def valid_paths(rig: Rig) -> set[str]:
    """The registered paths, as Nix's own database has them."""
    with closing(sqlite3.connect(f"{rig.state}/db/db.sqlite", timeout=10)) as database:
        return {path for (path,) in database.execute("SELECT path FROM ValidPaths")}


def unregistered(rig: Rig) -> set[str]:
    """What lies in the store and is not registered, as full paths."""
    on_disk = {f"/nix/store/{name}" for name in os.listdir(rig.store) if name != ".links"}
    return on_disk - valid_paths(rig)


def picture(*places: str) -> bytes:
    """All there is to see of trees without opening a file: any change in them changes it."""
    form = r"%p %i %y %m %U %G %n %s %T@ %C@ %l\0"
    return subprocess.run(
        ["find", *places, "-printf", form], capture_output=True, check=True
    ).stdout


def _below(place: str) -> list[str]:
    return [f"{place}/{name}" for name in os.listdir(place)]


def answers(path: str) -> bool:
    """Whether somebody listens at that Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True
