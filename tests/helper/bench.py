# SPDX-License-Identifier: MIT
"""Runs the engine on a throwaway store, and looks at what it did; other processes to meet it."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from json_documents import checked_records
from storewarden import audit, audit_reading
from storewarden.audit import Requester
from storewarden.client import request_for
from storewarden.errors import StoreUnreadableError
from storewarden.helper.engine import remove
from storewarden.observe import observe
from storewarden.protocol import Outcome, RemoveRequest
from storewarden.scan import entries_of
from storewarden.store.entries import classify, entry_of
from storewarden.store.paths import StorePath
from storewarden.store.store import Store
from storewarden.throwaway import ThrowawayStore
from sweeps import holding


def log_of(place: ThrowawayStore) -> str:
    """The audit log of the runs in that store."""
    return place.state_dir.removesuffix("/nix/var/nix") + "/log/audit.jsonl"


def request(place: ThrowawayStore, base_name: str, store: Store | None = None) -> RemoveRequest:
    """The request that a sweep would make for that entry, whatever its kind."""
    store = store or place.as_store()
    try:
        with observe(store) as seen:
            [it] = entries_of(seen, [base_name]).found
        entry, kind = it.entry, it.kind
    except StoreUnreadableError:  # of a broken world the engine has to find out by itself
        entry = entry_of(base_name, os.lstat(place.path(base_name)))
        owner = os.stat(place.store_dir.path).st_uid
        kind = classify(entry, None, store_uid=owner, build_users=store.build_users)
    return request_for(entry, kind)


def run(
    place: ThrowawayStore,
    *base_names: str,
    store: Store | None = None,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """What the engine says when asked to remove these, in one batch."""
    requests = [request(place, name, store) for name in base_names]
    return run_requests(place, requests, store=store, checkpoint=checkpoint)


def run_requests(
    place: ThrowawayStore,
    requests: list[RemoveRequest],
    *,
    store: Store | None = None,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """What the engine says to just these requests."""
    return list(
        remove(
            store or place.as_store(),
            requests,
            audit_log=log_of(place),
            requester=Requester(os.getuid(), os.getpid(), "test"),
            checkpoint=checkpoint,
        )
    )


def kept(place: ThrowawayStore, asked: RemoveRequest | str, store: Store | None = None) -> Outcome:
    """Why the engine leaves an entry, and all around it, as it is; nothing comes on record."""
    before = picture(place.store_dir.path)
    if isinstance(asked, str):
        asked = request(place, asked, store)
    (outcome,) = run_requests(place, [asked], store=store)
    assert outcome.status == "kept"
    assert picture(place.store_dir.path) == before
    assert not records(place)
    return outcome


def at(step: str, act: Callable[[], object]) -> Callable[[str], None]:
    """A checkpoint that does something the first time that step is reached."""
    waiting = [act]

    def checkpoint(reached: str) -> None:
        if reached == step and waiting:
            waiting.pop()()

    return checkpoint


def records(place: ThrowawayStore, *actions: str) -> list[audit.Members]:
    """The whole audit records with one of these actions (all, if none is named)."""
    found = list(audit_reading.read_records(log_of(place)))
    checked_records([record for record in found if record["action"] != "note"])  # a test's own
    return [record for record in found if not actions or record["action"] in actions]


def audit_is_whole(place: ThrowawayStore) -> bool:
    """Whether the chain of its log holds and every intent has its result."""
    return log_is_whole(log_of(place))


def log_is_whole(path: str) -> bool:
    """Whether the chain in that audit log holds and every intent has its result."""
    verified = audit_reading.verify(path)
    checked_records(list(audit_reading.read_records(path)))
    return not verified.problem and not verified.open_intents


def names(place: ThrowawayStore) -> set[str]:
    """What stands in the store directory."""
    return set(os.listdir(place.store_dir.path))


def picture(directory: str) -> dict[bytes, tuple[int, int, int, int, bytes]]:
    """All below a directory: inode, mode, size, links and content, to be compared later."""
    seen = {}
    for top, directories, files in os.walk(os.fsencode(directory)):
        for name in directories + files:
            path = os.path.join(top, name)
            found = os.lstat(path)
            content = b""
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            seen[path] = (found.st_ino, found.st_mode, found.st_size, found.st_nlink, content)
    return seen


@contextmanager
def live_temp_root(place: ThrowawayStore, path: StorePath) -> Iterator[None]:
    """While process 77 has one on that path."""
    roots = f"{place.state_dir}/temproots/77"
    with open(roots, "w", encoding="ascii") as file:
        file.write(place.path(path.base_name) + "\0")
    with holding(roots):
        yield


def out_of_reach(place: ThrowawayStore) -> None:
    """Lay what cannot be connected to where that store's nix-daemon would listen."""
    os.mkdir(f"{place.state_dir}/daemon-socket")
    os.symlink("socket", f"{place.state_dir}/daemon-socket/socket")


def can_be_locked(path: str, operation: int = fcntl.LOCK_EX) -> bool:
    """Whether anybody else could take that flock now."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(fd)
