# SPDX-License-Identifier: MIT
"""From a configuration to a store and its witnesses, and to who may remove in it."""

import functools
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

from storewarden import host, processes
from storewarden.audit import Requester
from storewarden.config import Config
from storewarden.copyable import REMOVE, ThisStore
from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.protocol import Outcome, RemoveRequest
from storewarden.repair import Remove, remove_through
from storewarden.store.fact import Fact, Known
from storewarden.store.nix import BATCH, Nix, ask, find_nix
from storewarden.store.paths import StorePath
from storewarden.store.store import Store, build_users

Asking = Callable[[int, int], None]
"""Takes how many paths Nix has been asked about, and of how many."""


def open_store(config: Config, asking: Asking = lambda _asked, _all: None) -> Store:
    """The store that the configuration names, with its build users as they are now.

    `asking` is called before each batch of paths that Nix is asked about.
    """
    root = os.geteuid() == 0
    # Asked late, and once: to connect has the daemon open and close its database, which between
    # the two an ordinary user may not be able to read (before Nix 2.22).
    apart = functools.cache(lambda: _apart(config.state_dir))
    # Root's witness has the last word, so it is the one that needs no third party's code.
    processes_of = host.processes_of if root else processes.processes_of
    nix = open_nix(config)
    allocated = (host.FIRST_ALLOCATED, host.ALLOCATED, host.PER_SLOT)
    return Store(
        store_dir=config.store_dir,
        state_dir=config.state_dir,
        build_users=build_users(config.build_group, allocated),
        ask_nix=lambda paths: ask_in_batches(nix, paths, asking),
        processes_of=lambda uids: None if apart() else processes_of(uids),
        min_age=config.min_age,
        view=config.store_dir.path,
        hidden_uid=host.hidden_uid(),
        apart=apart,
    )


def ask_in_batches(nix: Nix, paths: Sequence[StorePath], asking: Asking) -> dict[StorePath, Fact]:
    """As `ask`; `asking` is called before each batch, and what it raises ends that."""
    answers: dict[StorePath, Fact] = {}
    for start in range(0, len(paths), BATCH):
        asking(start, len(paths))
        began = time.monotonic()
        told = ask(nix, paths[start : start + BATCH])
        answers |= told
        silent = next((fact for fact in told.values() if fact.known is Known.UNKNOWN), None)
        if silent is not None and time.monotonic() - began >= nix.timeout:
            # As in `ask`, one wait is enough: what hangs now would hang for every batch to come.
            return answers | dict.fromkeys(paths[start + BATCH :], silent)
    return answers


def open_nix(config: Config) -> Nix:
    """The Nix to ask. Root runs none but the configured one, or one of the usual places."""
    wanted = config.nix or (None if os.geteuid() == 0 else shutil.which("nix"))
    return Nix(find_nix(wanted), config.store_dir, config.state_dir)


def _apart(state_dir: str) -> bool:
    """Whether nix-daemon runs in a pid namespace that cannot be seen from here."""
    try:
        found = host.listener(f"{state_dir}/daemon-socket/socket")
    except OSError:
        return False  # then Nix cannot be asked either, which keeps everything
    return found is not None and found[1] is None


def removes_here(store: Store) -> bool:
    """Whether this process may remove by itself: the store's owner (root, nearly always)."""
    try:
        uid = os.stat(store.store_dir.path).st_uid
    except OSError as cause:
        reason = os.strerror(cause.errno or 0).lower()
        raise StoreUnreadableError(
            f"cannot look at the store directory {store.store_dir.path}: {reason}"
        ) from cause
    return uid == os.geteuid() and uid != store.hidden_uid


def by_hand() -> str:
    """What the audit log says of a person who asks."""
    sudo = os.environ.get("SUDO_UID")
    return f"by sudo of uid {sudo}" if sudo else "by hand"


def this_store(config: Config) -> ThisStore:
    """The store that commands to copy are about."""
    return ThisStore(config.store_dir.path, config.state_dir)


def open_remover(
    config: Config, store: Store, via: str, waiting: Callable[[], None] = lambda: None
) -> Remove:
    """How this process has entries removed: by the engine in it, or else through the helper.

    `via` is what the audit log says of who asks. `waiting` is called every second while the helper
    is waited for; what it raises ends that.
    """
    if not removes_here(store):
        return remove_through(config.socket, waiting, this_store(config).command(REMOVE))
    from storewarden.helper import engine  # noqa: PLC0415 - only who may remove loads it

    if os.geteuid() == 0:
        try:
            host.make_writable(store.view)
        except OSError as cause:
            raise StorewardenError(
                f"{store.view} is mounted read-only and cannot be made writable here: {cause}"
            ) from cause
    requester = Requester(os.getuid(), os.getpid(), via)

    def remove(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        return engine.remove(store, requests, audit_log=config.audit_log, requester=requester)

    return remove
