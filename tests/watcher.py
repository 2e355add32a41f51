# SPDX-License-Identifier: MIT
"""The service over a throwaway store, run as a process of its own."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from command import PROGRAM, Desk


@dataclass(frozen=True, slots=True)
class Service:
    """One that was started, and where it puts things."""

    process: subprocess.Popen[bytes]
    desk: Desk

    @property
    def status(self) -> dict[str, Any]:
        """What it last wrote of itself; empty before that."""
        try:
            with open(f"{self.desk.directory}/watch/status.json", encoding="ascii") as file:
                document: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return {}
        return document

    @property
    def said(self) -> list[dict[str, Any]]:
        """Its log so far."""
        with open(f"{self.desk.directory}/service.log", encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().splitlines()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_until(self, happened: Callable[[], object], what: str, seconds: float = 20) -> None:
        """Return as soon as it has happened; it must not end before."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"the service has ended, before {what}"
            assert time.monotonic() < end, f"waited {seconds} s for {what}: {self.status}"
            time.sleep(0.02)


def configure(desk: Desk, *lines: str) -> str:
    """Write a configuration of the service over that store; where it lies."""
    own = {
        "store-dir": desk.place.store_dir.path,
        "state-dir": desk.place.state_dir,
        "runtime-dir": f"{desk.directory}/watch",
        "socket": f"{desk.directory}/helper.sock",
        "audit-log": desk.audit_log,
        "nix": desk.nix,
    }
    text = "\n".join([*(f'{key} = "{value}"' for key, value in own.items()), *lines, ""])
    place = f"{desk.directory}/config.toml"
    with open(f"{place}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(f"{place}.new", place)
    return place


@contextmanager
def serving(desk: Desk, *lines: str, **variables: str) -> Iterator[Service]:
    """While it watches, with those lines of configuration; SIGTERM must end it well."""
    words = [*PROGRAM, "watch", "--config", configure(desk, *lines)]
    with (
        open(f"{desk.directory}/service.log", "wb") as log,
        subprocess.Popen(words, stderr=log, env={**os.environ, **variables}) as process,
    ):
        service = Service(process, desk)
        try:
            service.wait_until(lambda: service.status, "its first word")
            yield service
            service.signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
