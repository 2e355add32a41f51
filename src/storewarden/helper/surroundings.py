# SPDX-License-Identifier: MIT
"""Where the helper runs: code that only root can have put there, and the store it is for."""

import os
import stat
import sys

from storewarden.store.errors import StorewardenError


def check_surroundings() -> None:
    """Refuse to run where somebody else could have put code into this process."""
    if not sys.flags.isolated:
        raise StorewardenError("start it as: python -I -m storewarden.helper")
    modules = [getattr(module, "__file__", None) for module in sys.modules.values()]
    for place in {sys.executable, *sys.path, *(file for file in modules if file)}:
        path = os.path.realpath(place)
        while True:
            if os.path.exists(path) and _open_to_others(os.stat(path)):
                raise StorewardenError(f"{path}, where this program is, can be changed by others")
            if path == "/":
                break
            path = os.path.dirname(path)


def _open_to_others(found: os.stat_result) -> bool:
    loose = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return bool(loose) or found.st_uid not in {0, os.geteuid()}


def check_view(view: str, store_dir: str) -> None:
    """Refuse a view of anything but this user's store: by device and inode."""
    seen, store = os.stat(view), os.stat(store_dir)
    if (seen.st_dev, seen.st_ino) != (store.st_dev, store.st_ino):
        raise StorewardenError(f"{view} is not the directory {store_dir}")
    if store.st_uid != os.geteuid():
        raise StorewardenError(f"{store_dir} belongs to uid {store.st_uid}; run it as that")
