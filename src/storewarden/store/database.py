# SPDX-License-Identifier: MIT
"""Nix's own record of what is valid: `<state>/db/db.sqlite`, schema 10 (2.3 to 2.36, and Lix).

Read-only, in a fresh connection each time, and never `immutable=1`: that ignores the write-ahead
log, so a path registered a moment ago would look invalid.
"""

import os
import sqlite3
from collections.abc import Callable, Container, Iterator
from contextlib import closing, contextmanager, suppress

from storewarden.errors import BadStorePathError, StoreUnreadableError, reason_of
from storewarden.store.paths import StoreDir, StorePath

SCHEMA = "10"
BUSY_SECONDS = 5.0
SAMPLE = 64
MANY_STRANGERS = 100
_NOT_FOR_THIS_USER = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_DISK = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
"""Opening it may need room for the `-shm` file, where no Nix process runs that has it open."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REALISED = "FROM Realisations r JOIN ValidPaths v ON v.id = r.outputPath"
_KNOWN = "FROM DerivationOutputs o JOIN ValidPaths v ON v.id = o.drv"


class DatabaseUnseenError(StoreUnreadableError):
    """This user cannot open the database, or it is not in this sandbox; root outside may.

    Normal before Nix 2.22: no `-shm` file stays behind, and an ordinary user cannot make one.
    """


def check_census(valid: int, present: int, strangers: int, count_owned: Callable[[], int]) -> None:
    """Refuse a database that cannot be this store's: everything would look stranded.

    `present` of the paths that it has as valid are on disk; `strangers` are the store paths on disk
    that it has not, but for lock files and temporaries. `count_owned` tells how many of these are
    build users' own, and is asked only where there are too many. They prove nothing: a wrong
    database makes root's paths look stranded, and a build user can make any number of names, but
    none that is root's.
    """
    if strangers == 0:
        return  # a new store, say: nothing would be touched
    advice = "nothing is removed; is --state-dir the one of this store? docs/operations.md has more"
    if valid == 0:
        raise StoreUnreadableError(f"the database knows no valid path at all; {advice}")
    if present == 0:
        raise StoreUnreadableError(f"no path that the database knows is in the store; {advice}")
    most = max(MANY_STRANGERS, present)
    if strangers > most and (left := strangers - count_owned()) > most:
        raise StoreUnreadableError(
            f"{left} of {left + present} store paths of root's are not in the"
            f" database, too many to be debris; {advice}"
        )


def check_schema(state_dir: str) -> None:
    """Refuse a database whose tables may mean something else than this program thinks."""
    path = f"{state_dir}/db/schema"
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            schema = file.read(32).strip()
    except PermissionError as cause:
        raise DatabaseUnseenError(f"cannot read {path}: permission denied") from cause
    except OSError as cause:
        if _only_the_socket(state_dir):
            raise DatabaseUnseenError(
                f"of {state_dir} only nix-daemon's socket is to be seen here, not the database"
            ) from cause
        raise StoreUnreadableError(
            f"cannot read {path}: {reason_of(cause)}; is --state-dir right, and Nix installed?"
        ) from cause
    if schema != SCHEMA:
        raise StoreUnreadableError(
            f"the Nix database has schema {schema!r} ({path}); only {SCHEMA} is understood"
        )


def _only_the_socket(state_dir: str) -> bool:
    """Whether this is a sandbox into which nix-daemon's socket was bound, and nothing else."""
    socket = f"{state_dir}/daemon-socket/socket"
    return os.path.exists(socket) and not os.path.lexists(f"{state_dir}/db")


@contextmanager
def connect(state_dir: str) -> Iterator[sqlite3.Connection]:
    """A fresh read-only connection for one question; schema checked, failures named."""
    check_schema(state_dir)
    path = f"{state_dir}/db/db.sqlite"
    # Every byte by its number, as `file:` may have it: none of them means anything else there.
    quoted = "".join(f"%{byte:02x}" for byte in os.fsencode(path))
    if not os.path.exists(path):
        raise StoreUnreadableError(f"there is no Nix database {path}; is --state-dir right?")
    try:
        with closing(
            sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        ) as connection:
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as cause:  # what is damaged has odd names
        raise _explain(path, cause) from cause


def registered(connection: sqlite3.Connection, store_dir: StoreDir, path: StorePath) -> bool:
    """Whether the database has `path` as valid, from a fresh transaction."""
    query = "SELECT 1 FROM ValidPaths WHERE path = ?"
    return connection.execute(query, (store_dir.join(path.base_name),)).fetchone() is not None


def sample(connection: sqlite3.Connection, store_dir: StoreDir) -> tuple[int, list[str | None]]:
    """How many paths are valid, and up to 64 spread over them: base name, or None if elsewhere."""
    (count,) = connection.execute("SELECT count(*) FROM ValidPaths").fetchone()
    rows = (
        connection.execute(
            "SELECT path FROM ValidPaths WHERE id % ? = 0 LIMIT ?",
            (max(1, count // SAMPLE), SAMPLE),
        ).fetchall()
        or connection.execute("SELECT path FROM ValidPaths LIMIT ?", (SAMPLE,)).fetchall()
    )
    prefix = f"{store_dir.path}/"
    return count, [p.removeprefix(prefix) if str(p).startswith(prefix) else None for (p,) in rows]


class Outputs:
    """What the database knows of the outputs of derivations, asked by one connection.

    DerivationOutputs has those whose path is known before the build (input-addressed, fixed,
    deferred), from the time their `.drv` is registered. Built ones, floating or not, are in
    BuildTraceV3 (2.35 on; its rows outlive the path) or in Realisations (2.4 to 2.34), which does
    not name the derivation but a hash of it. Any client can add rows to those, of any text.
    """

    def __init__(self, connection: sqlite3.Connection, store_dir: StoreDir) -> None:
        """Look which of the tables there are: those of floating outputs are made on first use."""
        connection.text_factory = os.fsdecode
        self._connection, self._store_dir = connection, store_dir
        self._tables = {name for (name,) in self._ask("SELECT name FROM sqlite_master")}

    def derivers_of(self, path: StorePath) -> list[StorePath]:
        """The derivations that have `path` as an output which is known before their build."""
        return self._paths(f"SELECT v.path {_KNOWN} WHERE o.path = ?", path)

    def paths_of(self, derivation: StorePath) -> list[StorePath]:
        """The outputs of a registered derivation that have a known path."""
        return self._paths(f"SELECT o.path {_KNOWN} WHERE v.path = ?", derivation)

    def traced(self, path: StorePath) -> list[StorePath]:
        """The derivations that had `path` as a floating output and would write it there again."""
        if "BuildTraceV3" not in self._tables:
            return []
        rows = self._ask("SELECT drvPath FROM BuildTraceV3 WHERE outputPath = ?", path)
        return [drv for (text,) in rows if (drv := StorePath.maybe(str(text)))]

    def realised(self, names: Container[str]) -> Iterator[tuple[StorePath | None, StorePath]]:
        """Derivation (None: not told) and path of the outputs so called that were built."""
        queries = {
            "BuildTraceV3": "SELECT drvPath, outputPath FROM BuildTraceV3",
            "Realisations": f"SELECT '', v.path {_REALISED}",
        }
        for query in [queries[table] for table in queries if table in self._tables]:
            for drv, text in self._ask(query):
                if (path := self._path(text)) is not None and path.name in names:
                    yield StorePath.maybe(str(drv)), path

    def _ask(self, query: str, *about: StorePath) -> sqlite3.Cursor:
        full_paths = [self._store_dir.join(path.base_name) for path in about]
        return self._connection.execute(query, full_paths)

    def _paths(self, query: str, about: StorePath) -> list[StorePath]:
        return [path for (text,) in self._ask(query, about) if (path := self._path(text))]

    def _path(self, value: object) -> StorePath | None:
        with suppress(BadStorePathError):
            return self._store_dir.parse(str(value))
        return None


def _explain(path: str, cause: Exception) -> StoreUnreadableError:
    text = " ".join(str(cause).split())  # it may quote a table's whole text
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _NOT_FOR_THIS_USER and os.geteuid() != 0:
        return DatabaseUnseenError(f"this user cannot open the Nix database {path}: {text}")
    what, advice = "cannot be read", "see nix-store --verify, or a backup"
    if code in _BUSY:
        what, advice = f"stayed locked for {BUSY_SECONDS:.0f} s", "try again"
    elif code in _DISK:
        advice = f"is the disk full? (df {path})"
    return StoreUnreadableError(f"the Nix database {path} {what}: {text}; {advice}")
