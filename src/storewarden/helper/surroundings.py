# SPDX-License-Identifier: MIT
"""Where the helper runs: code that only root can have put there, and the store it is for."""

import os
import stat
import sys
from collections.abc import Iterator

from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.host import RESTART_HELPER, listener, mounts, others_write, unfit
from storewarden.store.entries import FileId
from storewarden.store.store import Store

Met = dict[str, FileId]
"""The store directories that a process has looked at, as each was at first."""


def check_surroundings() -> None:
    """Refuse to run where somebody else could have put code into this process."""
    if not sys.flags.isolated:
        raise StorewardenError("start it as: python -I -m storewarden.helper")
    modules = [getattr(module, "__file__", None) for module in sys.modules.values()]
    for place in {sys.executable, *sys.path, *(file for file in modules if file)}:
        check_place(place, "where this program is")


def check_place(place: str, what: str) -> None:
    """Refuse a file that others can exchange: it, a directory or a link on the way to it.

    What is not there is no matter; what is above it is.
    """
    for path in _way_to(place if os.path.isabs(place) else f"{os.getcwd()}/{place}"):
        if os.path.lexists(path) and _open_to_others(path, os.lstat(path)):
            raise StorewardenError(f"{path}, {what}, can be changed by others")


def _way_to(place: str) -> Iterator[str]:
    """From the top: each directory, each link, and the way to what that points to."""
    at = "/"
    for name in place.split("/"):
        at = os.path.normpath(f"{at}/{name}")  # no link is left in it, so `..` is what it says
        yield at
        if os.path.islink(at):
            yield from _way_to(os.path.join(os.path.dirname(at), os.readlink(at)))
            at = os.path.realpath(at)


def _open_to_others(path: str, found: os.stat_result) -> bool:
    # The mode of a link says nothing; a sticky bit keeps what belongs to others from them.
    kept = stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX
    return (others_write(path, found) and not kept) or found.st_uid not in {0, os.geteuid()}


def check_view(view: str, store_dir: str, met: Met) -> None:
    """Refuse a view of anything but this user's store, and a store that is not the one it was.

    By device and inode. What this process has `met` grows by it.
    """
    try:
        seen, store = os.stat(view), os.stat(store_dir)
    except OSError as cause:
        raise StoreUnreadableError(f"cannot look at the store: {cause}") from cause
    if met.setdefault(store_dir, FileId.of(store)) != FileId.of(store):
        raise StoreUnreadableError(
            f"{store_dir} is another directory than when this helper began (it was replaced, or"
            f" mounted over); nothing is removed; if that is meant: {RESTART_HELPER}"
        )
    if FileId.of(seen) != FileId.of(store):
        raise StorewardenError(f"{view} is not the directory {store_dir}")
    if store.st_uid != os.geteuid():
        raise StorewardenError(f"{store_dir} belongs to uid {store.st_uid}; run it as that")


def check_file_system(store: Store) -> None:
    """Refuse where others may write without our seeing their locks: `StoreUnreadableError`."""
    seen = mounts()
    if seen is None:
        raise StoreUnreadableError("the mounts of this machine cannot be read; nothing is removed")
    for path in {store.store_dir.path, store.view}:
        if reason := unfit(path, seen):
            raise StoreUnreadableError(f"{reason}; nothing is removed")


def check_namespace(store: Store) -> None:
    """Refuse where the daemon's processes, and so its builders, cannot be seen from here.

    The kernel gives no pid for a peer in a pid namespace outside ours. Where nobody answers,
    Nix cannot be asked either, which keeps everything.
    """
    try:
        found = listener(f"{store.state_dir}/daemon-socket/socket")
    except OSError as cause:
        raise StoreUnreadableError(
            f"nix-daemon cannot be reached ({cause}); nothing is removed"
        ) from cause
    if found is not None and found[1] is None:
        raise StoreUnreadableError(
            "nix-daemon runs outside this container, so its builders cannot be seen from here;"
            " nothing is removed; run storewarden where nix-daemon runs"
        )
