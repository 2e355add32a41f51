# SPDX-License-Identifier: MIT
"""`python -m storewarden` as a user runs it, over a throwaway store and a stand-in for Nix."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from json_documents import checked
from stand_in import write_answering_nix
from storewarden.readable import Caller, caller_of
from storewarden.setup.code import PACKAGE
from storewarden.store.paths import StorePath, output_lock
from storewarden.throwaway import ThrowawayStore

ROOT = os.geteuid() == 0
PROGRAM = (sys.executable, "-m", "storewarden")
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Desk:
    """A store, and where everything that a command needs is put."""

    place: ThrowawayStore
    directory: Path

    @property
    def audit_log(self) -> str:
        """Where removals are recorded."""
        return f"{self.directory}/log/audit.jsonl"

    @property
    def nix(self) -> str:
        """The stand-in that is asked in Nix's place."""
        return f"{self.directory}/bin/nix"

    def scan(self, *words: str) -> list[str]:
        """The command that scans this store."""
        return [*PROGRAM, "scan", *self.surroundings(), *words]

    def surroundings(self) -> list[str]:
        """What keeps a scan off this machine's own store and settings."""
        return [
            *("--config", os.devnull),
            *("--store-dir", self.place.store_dir.path),
            *("--state-dir", self.place.state_dir),
            *("--nix", self.nix),
            *("--audit-log", self.audit_log),
            *("--socket", f"{self.directory}/helper.sock"),
            *("--min-age", "0"),
        ]

    def names(self) -> set[str]:
        """What lies in the store directory now."""
        return set(os.listdir(self.place.store_dir.path))

    def locks(self) -> int:
        """How many lock files lie in the store."""
        return sum(name.endswith(".lock") for name in self.names())


def open_desk(place: ThrowawayStore, directory: Path) -> Desk:
    """A desk whose Nix knows nothing as valid."""
    desk = Desk(place, directory)
    os.makedirs(os.path.dirname(desk.nix))
    write_answering_nix(desk.nix)
    return desk


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end; whatever happens it shows no traceback."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=SECONDS,
        check=False,
        env={**os.environ, **variables},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def report(done: subprocess.CompletedProcess[str]) -> Any:  # noqa: ANN401 - JSON
    """The one JSON object that it printed, which is as its schema says."""
    words: list[str] = done.args
    return checked(done.stdout, *words[words.index("storewarden") + 1 :])


def typed(text: str) -> str:
    """That command as `run` is told to type it, which starts no console script."""
    return _caller().typed(text)


def typed_by_nobody(text: str) -> str:
    """The same as another user is told to type it."""
    return replace(_caller(), root=False).typed(text)


def _caller() -> Caller:
    return caller_of([f"{PACKAGE}/__main__.py"], sys.executable, os.environ)


def strand_lock(place: ThrowawayStore, name: str) -> str:
    """A lock file that covers nothing; an ordinary user may have it removed as root may."""
    base_name = output_lock(StorePath(place.invent(f"{name}.drv").base_name), "out")
    place.add_lock(base_name)
    return base_name
