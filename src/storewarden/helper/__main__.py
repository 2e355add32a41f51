# SPDX-License-Identifier: MIT
"""`python -I -m storewarden.helper`: the engine behind a Unix socket, one request at a time.

It reads no configuration file and no variable but systemd's LISTEN_* and NOTIFY_SOCKET. The allowed
uids only limit who may ask; it is meant to be safe if every local user could.

systemd is told READY and STOPPING, but not that it is alive: a purge lasts as long as the tree is
large, and the only wait that could hang, for Nix, has an end of its own.
"""

import argparse
import os
import pwd
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from storewarden import host
from storewarden.errors import BadMessageError, StorewardenError
from storewarden.helper.engine import Requester, remove
from storewarden.helper.surroundings import check_place, check_surroundings, check_view
from storewarden.host.listening import listening, notify
from storewarden.protocol import MAX_REQUEST, Status, decode_request, encode_end, encode_outcome
from storewarden.store.nix import Nix, ask, find_nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store, build_users

DEFAULT_SOCKET = "/run/storewarden/helper.sock"
DEFAULT_AUDIT_LOG = "/var/log/storewarden/audit.jsonl"
_REQUEST_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until idle for too long or told to end; 0 then, 2 for bad use, 3 for a broken world."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.allow_uid:
        parser.error("say who may ask, with --allow-uid UID or --allow-user NAME")
    os.umask(0o077)
    try:
        with listening(arguments.socket, arguments.allow_uid) as listener:
            _prepare(listener, arguments)
            _serve(listener, arguments)
    except (StorewardenError, OSError) as cause:
        _say(3, f"storewarden-helper: error: {cause}")
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="storewarden-helper", allow_abbrev=False)
    add = parser.add_argument
    add("--allow-uid", type=int, action="append", metavar="UID")
    add("--allow-user", type=_uid_of, action="append", dest="allow_uid", metavar="NAME")
    add("--socket", default=DEFAULT_SOCKET)
    add("--store-dir", default="/nix/store")
    add("--state-dir", default="/nix/var/nix")
    add("--view", help="where the store directory is writable, if elsewhere")
    add("--nix", help="absolute path of nix")
    add("--build-group", default="nixbld")
    add("--audit-log", default=DEFAULT_AUDIT_LOG)
    add("--min-age", type=float, default=2.0, metavar="SECONDS")
    add("--idle-exit", type=float, default=0.0, metavar="SECONDS", help="0: never")
    return parser


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user {name!r}") from None


def _prepare(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """Check that the work can be done; where it cannot, those who wait are told why.

    For one who still waited, systemd would start it again at once, and soon give up the socket.
    """
    try:
        check_surroundings()
        os.chdir("/")
        arguments.view = arguments.view or arguments.store_dir
        if arguments.view == arguments.store_dir:
            host.make_writable(arguments.store_dir)
        check_view(arguments.view, arguments.store_dir)
    except (StorewardenError, OSError) as cause:
        listener.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                with listener.accept()[0] as connection:
                    _send(connection, encode_end(f"the helper cannot work: {cause}"))
        raise


def _serve(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """Answer one connection after the other. A signal ends it between two, never within one."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    _say(6, f"serving {arguments.socket} for uid {sorted(set(arguments.allow_uid))}")
    notify("READY=1")
    patience = arguments.idle_exit or None
    while True:
        ready, _, _ = select.select([listener.fileno(), wake], [], [], patience)
        if not ready or wake in ready:
            notify("STOPPING=1")
            return
        connection, _ = listener.accept()
        with connection:
            _answer(connection, arguments)


def _answer(connection: socket.socket, arguments: argparse.Namespace) -> None:
    try:
        uid, pid = host.peer(connection)
        if uid not in arguments.allow_uid:
            _say(4, f"uid {uid} (pid {pid}) may not ask")
            _send(connection, encode_end(f"uid {uid} may not ask this helper (see --allow-uid)"))
            return
        requests = decode_request(_read_line(connection))
        requester = Requester(uid, pid, "socket")
        store, log = _store(arguments), arguments.audit_log
        for outcome in remove(store, requests, audit_log=log, requester=requester):
            level = 3 if outcome.status is Status.FAILED else 6
            _say(level, f"{outcome.base_name}: {outcome.status} {'; '.join(outcome.reasons)}")
            _send(connection, encode_outcome(outcome))
        _send(connection, encode_end())
    except StorewardenError as cause:
        _say(4, str(cause))
        _send(connection, encode_end(str(cause)))
    except OSError as cause:
        _say(4, f"connection lost: {cause}")


def _read_line(connection: socket.socket) -> bytes:
    """One line of at most 4 KiB, within ten seconds; `BadMessageError` otherwise."""
    deadline = time.monotonic() + _REQUEST_SECONDS
    data = b""
    while b"\n" not in data:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = connection.recv(MAX_REQUEST + 1 - len(data))
        except TimeoutError:
            raise BadMessageError("the request did not come in time") from None
        if not more or len(data) + len(more) > MAX_REQUEST:
            raise BadMessageError(f"a request is one line of at most {MAX_REQUEST} bytes")
        data += more
    line, _, rest = data.partition(b"\n")
    if rest:
        raise BadMessageError("one request a connection")
    return line


def _send(connection: socket.socket, data: bytes) -> None:
    """Tell the client; if it has gone away, the work goes on all the same."""
    try:
        connection.settimeout(_REQUEST_SECONDS)
        connection.sendall(data)
    except OSError:
        return


def _store(arguments: argparse.Namespace) -> Store:
    """The store, with its build users resolved anew: they may have changed since the start."""
    store_dir = StoreDir(arguments.store_dir)
    nix = Nix(find_nix(arguments.nix), store_dir, arguments.state_dir)
    for program in (nix.program, nix.nix_store):
        check_place(program, "which would be run as root (another: --nix)")
    allocated = (host.FIRST_ALLOCATED, host.ALLOCATED, host.PER_SLOT)
    return Store(
        store_dir=store_dir,
        state_dir=arguments.state_dir,
        build_users=build_users(arguments.build_group, allocated),
        ask_nix=lambda paths: ask(nix, paths),
        processes_of=host.processes_of,
        min_age=arguments.min_age,
        view=arguments.view,
        hidden_uid=host.hidden_uid(),
    )


def _say(level: int, text: str) -> None:
    """One line for the journal, with its priority in front."""
    print(f"<{level}>{text}", file=sys.stderr, flush=True)  # noqa: T201 - the helper's only log


if __name__ == "__main__":
    sys.exit(main())
