# SPDX-License-Identifier: MIT
"""What is asked once for a batch: Nix's answers, the derivers, and whether to act here at all."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storewarden.errors import StoreUnreadableError
from storewarden.helper.claims import temp_roots
from storewarden.host import listener, mounts, unfit
from storewarden.protocol import RemoveRequest
from storewarden.store.database import Census, Outputs, connect, sample
from storewarden.store.derivation import find_origins
from storewarden.store.entries import count_owned, each_name
from storewarden.store.fact import Fact
from storewarden.store.paths import LOCK_SUFFIX, Origin, StorePath
from storewarden.store.store import Store

_DASH = 32


@dataclass(frozen=True, slots=True)
class Survey:
    """What held of a batch before any lock was taken; it can only lead to fewer removals."""

    nix: dict[StorePath, Fact]
    origins: dict[StorePath, Origin]


def survey(store: Store, store_fd: int, requests: Sequence[RemoveRequest]) -> Survey:
    """Ask Nix and read the store once; `StoreUnreadableError` where nothing may be removed."""
    _check_file_system(store)
    _check_namespace(store)
    paths, seen = [StorePath(request.base_name) for request in requests], 0
    # Where they cannot be read a derivation may be missed, and so the locks that cover its output.
    roots = temp_roots(store.state_dir, store.store_dir)

    def names() -> Iterator[str]:
        nonlocal seen
        yield from (path.base_name for path in roots if path.is_derivation)
        for name in each_name(store_fd):
            seen += _counts(name)  # as they come by, so that the store is listed once
            yield name

    with connect(store.state_dir) as connection:
        outputs = Outputs(connection, store.store_dir)
        origins = find_origins(store, store_fd, paths, names(), outputs)
        count, sampled = sample(connection, store.store_dir)
    present = sum(name is not None and os.path.lexists(f"{store.view}/{name}") for name in sampled)
    scaled = count * present // max(1, len(sampled))
    Census(count, scaled, max(0, seen - scaled)).check(
        lambda: count_owned(store_fd, filter(_counts, each_name(store_fd)), store.build_users)
    )
    return Survey(store.ask_nix(paths), origins)


def _counts(name: str) -> bool:
    """Roughly whether it is a store path's: this is asked of every name of the store."""
    return name[_DASH : _DASH + 1] == "-" and not name.endswith(LOCK_SUFFIX)


def _check_file_system(store: Store) -> None:
    seen = mounts()
    if seen is None:
        raise StoreUnreadableError("the mounts of this machine cannot be read; nothing is removed")
    for path in {store.store_dir.path, store.view}:
        if reason := unfit(path, seen):
            raise StoreUnreadableError(f"{reason}; nothing is removed")


def _check_namespace(store: Store) -> None:
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
