# SPDX-License-Identifier: MIT
"""A whole store at once: its names on disk and in Nix's database. The helper looks at few."""

import os
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator

from storewarden.errors import StoreUnreadableError, reason_of
from storewarden.store.database import DatabaseUnseenError, Outputs, connect, registered
from storewarden.store.derivation import find_origins
from storewarden.store.entries import LINKS, OPEN_TO_OTHERS, PRIVATE_PREFIX, Entry, opened_anew
from storewarden.store.paths import Origin, StoreDir, StorePath
from storewarden.store.store import Store


def list_names(store_fd: int) -> list[str]:
    """Every name in the store directory but `.links`."""
    try:
        with opened_anew(store_fd) as fd:
            return [name for name in os.listdir(fd) if name != LINKS]
    except OSError as cause:
        reason = reason_of(cause)
        raise StoreUnreadableError(f"cannot list the store directory: {reason}") from cause


def valid_names(state_dir: str, store_dir: StoreDir) -> Iterator[str]:
    """Base names of all valid paths, one after the other. About 0.1 s for 200,000."""
    # Only what lies in this store directory: "0" is the character after "/".
    first, after = f"{store_dir.path}/", f"{store_dir.path}0"
    query = "SELECT substr(path, ?) FROM ValidPaths WHERE path > ? AND path < ?"
    with connect(state_dir) as connection:
        rows = connection.execute(query, (len(first) + 1, first, after))
        for (name,) in rows:
            if not isinstance(name, str):
                raise sqlite3.DatabaseError("a path in it is no text")
            yield name


def still_valid(state_dir: str, store_dir: StoreDir, names: Iterable[str]) -> list[str]:
    """Those of `names` that the database still has: asked again, for what seems to be missing."""
    paths = [path for name in names if (path := StorePath.maybe(name)) is not None]
    with connect(state_dir) as connection:
        valid = [p for p in paths if registered(connection, store_dir, p)]
    return [path.base_name for path in valid]


def is_private(entry: Entry, store_uid: int) -> bool:
    """Whether it is a private directory of this program's, which no build user can make."""
    own = stat.S_ISDIR(entry.mode) and not entry.mode & OPEN_TO_OTHERS
    return own and entry.uid == store_uid and entry.base_name.startswith(PRIVATE_PREFIX)


def origins_of(
    store: Store, store_fd: int, wanted: Iterable[StorePath], names: Collection[str]
) -> dict[StorePath, Origin]:
    """As `find_origins`, with what this user can read of the database."""
    paths = list(wanted)
    try:
        with connect(store.state_dir) as connection:
            outputs = Outputs(connection, store.store_dir)
            return find_origins(store, store_fd, paths, names, outputs)
    except DatabaseUnseenError:
        return find_origins(store, store_fd, paths, names, None)
