# SPDX-License-Identifier: MIT
"""A store that lies elsewhere than its paths say, such as a chroot store: it is not supported.

Nix's `local?root=DIR` has /nix/store in its database and below DIR on disk. By names nothing there
is registered, so all of it would look stranded.
"""

from storewarden.errors import StoreUnreadableError
from storewarden.store.database import connect
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store


def check_place(store: Store) -> None:
    """`StoreUnreadableError` for such a store, and for the database of another one."""
    if why := misplaced(store.state_dir, store.store_dir):
        raise StoreUnreadableError(why)


def misplaced(state_dir: str, store_dir: StoreDir) -> str:
    """Why that database is of no use for that directory; empty if it is, or cannot be read."""
    first, after = f"{store_dir.path}/", f"{store_dir.path}0"  # "0" comes after "/"
    query = "SELECT path FROM ValidPaths WHERE path > ? AND path < ? LIMIT 1"
    try:
        with connect(state_dir) as connection:
            here = connection.execute(query, (first, after)).fetchone()
            any_path = connection.execute("SELECT path FROM ValidPaths LIMIT 1").fetchone()
    except StoreUnreadableError:
        return ""  # told where it is needed
    if here or not any_path:
        return ""
    elsewhere = str(any_path[0]).rpartition("/")[0]
    return (
        f"the database in {state_dir} has its paths in {elsewhere}, and none in {store_dir.path}:"
        " is --state-dir the one of this store? If this is a chroot store (local?root=...): a store"
        " that lies elsewhere than its paths say is not supported"
    )
