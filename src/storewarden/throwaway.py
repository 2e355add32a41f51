# SPDX-License-Identifier: MIT
"""A throwaway store in Nix's real layout: directories, SQLite in schema 10, flocks. No Nix needed.

For `storewarden demo` and for the tests. As root its build user is an auto-allocated uid; for an
ordinary user, who cannot give files away, everything is that user's own.
"""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Self

from storewarden import host
from storewarden.config import Config
from storewarden.errors import StoreUnreadableError
from storewarden.store.database import connect, registered
from storewarden.store.entries import BuildUsers
from storewarden.store.floating import nix32
from storewarden.store.paths import StoreDir, StorePath, output_lock, scratch_path
from storewarden.store.store import NO, Fact, Known, Store

SCHEMA = """
    CREATE TABLE ValidPaths (
        id integer PRIMARY KEY AUTOINCREMENT NOT NULL, path text UNIQUE NOT NULL,
        hash text NOT NULL, registrationTime integer NOT NULL, deriver text, narSize integer,
        ultimate integer, sigs text, ca text);
    CREATE TABLE Refs (
        referrer integer NOT NULL, reference integer NOT NULL, PRIMARY KEY (referrer, reference));
    CREATE TABLE DerivationOutputs (
        drv integer NOT NULL, id text NOT NULL, path text NOT NULL, PRIMARY KEY (drv, id));
    CREATE INDEX IndexDerivationOutputs ON DerivationOutputs(path);
"""
"""The tables of libstore/schema.sql that are read here (the same in 2.3 to 2.36)."""


def open_store(config: Config, _view: str | None) -> Store:
    """The throwaway store that a helper's configuration names, where nobody is at work."""
    place = ThrowawayStore(config.store_dir, config.state_dir)
    return replace(place.as_store(), processes_of=lambda _: [])


def _children(uids: Collection[int]) -> list[int]:
    """As `processes_of`: who is at work in a throwaway store is a child of this process."""
    from storewarden.processes import children_of_this_process  # noqa: PLC0415 - not in a helper

    return children_of_this_process(uids)


def _builder() -> int:
    return host.FIRST_ALLOCATED if os.geteuid() == 0 else os.geteuid()


@dataclass(slots=True)
class ThrowawayStore:
    """A store below one directory; what is added to it is really there."""

    store_dir: StoreDir
    state_dir: str
    builder: int = field(default_factory=_builder)
    """The uid that stranded outputs belong to."""
    held: list[int] = field(default_factory=list)
    """Descriptors whose flocks keep entries alive."""

    @classmethod
    def create(cls, directory: str) -> Self:
        """An empty store in `directory`/nix."""
        store_dir, state_dir = f"{directory}/nix/store", f"{directory}/nix/var/nix"
        for path in ("db", "userpool", "userpool2", "temproots", "gcroots"):
            os.makedirs(f"{state_dir}/{path}")
        os.makedirs(f"{store_dir}/.links")
        os.chmod(store_dir, 0o1775)  # noqa: S103 - Nix's own: build users make their outputs there
        with open(f"{state_dir}/db/schema", "w", encoding="ascii") as file:
            file.write("10")
        with closing(sqlite3.connect(f"{state_dir}/db/db.sqlite")) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.executescript(SCHEMA)
        return cls(StoreDir(os.path.realpath(store_dir)), state_dir)

    def close(self) -> None:
        """Let go of all held locks."""
        while self.held:
            os.close(self.held.pop())

    def path(self, name: str) -> str:
        """The full path of an entry."""
        return self.store_dir.join(name)

    def invent(self, name: str) -> StorePath:
        """A store path of that name; the same each time."""
        return StorePath(f"{nix32(hashlib.sha256(name.encode()).digest()[:20])}-{name}")

    def add_valid(self, name: str, content: str = "valid\n") -> StorePath:
        """A registered path, a read-only file."""
        path = self.invent(name)
        self._write(path.base_name, content, 0o444)
        self.register(path)
        return path

    def register(self, *paths: StorePath) -> None:
        """Make the database know these paths as valid."""
        rows = [(self.path(path.base_name), f"sha256:{'0' * 64}") for path in paths]
        with closing(sqlite3.connect(f"{self.state_dir}/db/db.sqlite")) as connection, connection:
            connection.executemany(
                "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?, ?, 1)",
                rows,
            )

    def add_derivation(self, name: str) -> StorePath:
        """A registered derivation, `name` without `.drv`."""
        return self.add_valid(f"{name}.drv", "Derive(...)\n")

    def strand(self, derivation: StorePath, output: str = "out") -> StorePath:
        """What an interrupted build of a floating output leaves: its directory and its lock."""
        path = scratch_path(derivation, output, self.store_dir)
        self.add_output(path)
        self.add_lock(output_lock(derivation, output))
        return path

    def add_output(self, path: StorePath) -> None:
        """An unregistered directory of the build user."""
        top = self.path(path.base_name)
        os.makedirs(f"{top}/bin")
        for name in ("log", "bin/tool"):
            self._write(f"{path.base_name}/{name}", "half\n", 0o644)
        os.symlink("log", f"{top}/link")
        self._give_away(top)

    def add_lock(self, base_name: str) -> None:
        """A lock file as Nix leaves it after a failure: empty, 0600."""
        self._write(base_name, "", 0o600)

    def hold(self, path: str) -> None:
        """Really hold the flock of that file, as a living Nix process would."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.held.append(fd)

    def add_file(self, base_name: str) -> None:
        """Any file of the store's owner, not registered."""
        self._write(base_name, "something\n", 0o444)

    def as_store(self, min_age: float | None = 0.0) -> Store:
        """It, as the rest of the program addresses a store."""
        own = frozenset() if os.geteuid() == 0 else frozenset({self.builder})
        return Store(
            store_dir=self.store_dir,
            state_dir=self.state_dir,
            build_users=BuildUsers(None, own, host.FIRST_ALLOCATED, host.ALLOCATED, host.PER_SLOT),
            ask_nix=self.ask_database,
            processes_of=_children,
            min_age=min_age,
            view=self.store_dir.path,
        )

    def ask_database(self, paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        """The witness in Nix's place: here is none to ask, so its database is read once more."""
        try:
            with connect(self.state_dir) as connection:
                return {
                    path: Fact(Known.YES) if registered(connection, self.store_dir, path) else NO
                    for path in paths
                }
        except StoreUnreadableError as cause:
            return {path: Fact(Known.UNKNOWN, str(cause)) for path in paths}

    def _write(self, base_name: str, content: str, mode: int) -> None:
        fd = os.open(self.path(base_name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(fd, mode)

    def _give_away(self, top: str) -> None:
        if os.geteuid() != 0:
            return
        for directory, _, names in os.walk(top, topdown=False):
            for name in names:
                os.lchown(f"{directory}/{name}", self.builder, self.builder)
            os.lchown(directory, self.builder, self.builder)
