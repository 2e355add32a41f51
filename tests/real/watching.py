# SPDX-License-Identifier: MIT
"""The service, run in a rig as a service manager would run it, and what it says."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGTERM
from typing import Any

from real import namespace as ns
from real.rig import Rig
from real.warden import audit_log, socket_path


@dataclass(frozen=True, slots=True)
class Service:
    """One that runs."""

    rig: Rig
    child: ns.Child
    log: str

    @property
    def status(self) -> dict[str, Any]:
        """What it last wrote down of itself."""
        place = f"{runtime_dir(self.rig)}/status.json"
        # The first one is written a moment after the log says that it watches.
        ns.wait_until(lambda: os.path.exists(place), "the status")
        document: dict[str, Any] = json.loads(ns.read(place))
        return document

    @property
    def said(self) -> str:
        """Its log so far."""
        return ns.read(self.log)


def configure(rig: Rig, *lines: str) -> str:
    """Write a configuration for that rig; where it lies."""
    place = f"{rig.base}/logs/config.toml"
    own = (
        f'runtime-dir = "{runtime_dir(rig)}"',
        f'socket = "{socket_path(rig)}"',
        f'audit-log = "{audit_log(rig)}"',
    )
    with open(f"{place}.new", "w", encoding="utf-8") as file:
        file.write("\n".join([*own, *lines, ""]))
    os.rename(f"{place}.new", place)
    return place


def runtime_dir(rig: Rig) -> str:
    return f"{rig.base}/run/watch"


@contextlib.contextmanager
def service(
    rig: Rig, *lines: str, user: str = "root", through: Sequence[str] = ()
) -> Iterator[Service]:
    """While `storewarden watch` runs with those lines of configuration; it must end well."""
    started = start_service(rig, *lines, user=user, through=through)
    try:
        yield started
    finally:
        ns.kill(rig.namespace, SIGTERM, started.child.pid)
        code = started.child.process.wait(20)
    assert code == 0, started.said


def start_service(
    rig: Rig, *lines: str, user: str = "root", through: Sequence[str] = ()
) -> Service:
    """Start it; returns when it watches, or has ended. `through` is a command that runs it."""
    place = configure(rig, *lines)
    if not os.path.isdir(runtime_dir(rig)):
        made = ns.run(rig.namespace, ["install", "-d", "-o", user, runtime_dir(rig)])
        assert made.returncode == 0, made.stderr
    log = f"{rig.base}/logs/watch-{len(os.listdir(f'{rig.base}/logs'))}"
    words = [*through, rig.python, "-m", "storewarden", "watch", "--config", place]
    child = ns.start(rig.namespace, words, log=log, user=user)
    ns.wait_until(
        lambda: '"watching"' in ns.read(log) or child.process.poll() is not None, "the service"
    )
    return Service(rig, child, log)
