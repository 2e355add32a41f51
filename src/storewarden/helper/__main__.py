# SPDX-License-Identifier: MIT
"""`python -I -m storewarden.helper`: the engine behind a Unix socket, one request at a time.

It reads the configuration that --config names, if only root can change that, at the start and for
each request; arguments win. It reads no variable but systemd's LISTEN_* and NOTIFY_SOCKET. The
allowed uids only limit who may ask; it is meant to be safe if every local user could.

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
from storewarden.audit import Requester
from storewarden.config import Config, load_config_if_there, overridden
from storewarden.errors import BadMessageError, StorewardenError
from storewarden.helper.engine import remove
from storewarden.helper.surroundings import check_place, check_surroundings, check_view
from storewarden.host.listening import listening, notify
from storewarden.protocol import MAX_REQUEST, Status, decode_request, encode_end, encode_outcome
from storewarden.store.nix import Nix, ask, find_nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store, build_users

_REQUEST_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until idle for too long or told to end; 0 then.

    2 for wrong use or a wrong configuration, 3 for a broken world.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.allow_uid:
        parser.error("say who may ask, with --allow-uid UID or --allow-user NAME")
    os.umask(0o077)
    try:
        config = _config(arguments)
    except StorewardenError as cause:
        _say(3, f"storewarden-helper: error: {cause}")
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            with suppress(OSError), listening("", ()) as listener:
                _refuse_all(listener, cause)
        return 2
    try:
        with listening(config.socket, arguments.allow_uid) as listener:
            _prepare(listener, arguments, config)
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
    add("--config", help="the settings, if it is there; others must not be able to change it")
    for key in ("socket", "store-dir", "state-dir", "nix", "build-group", "audit-log"):
        add(f"--{key}", help="instead of what the configuration says")
    add("--view", help="where the store directory is writable, if elsewhere")
    add("--min-age", type=float, default=2.0, metavar="SECONDS")
    add("--idle-exit", type=float, default=0.0, metavar="SECONDS", help="0: never")
    return parser


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no user {name!r}") from None


def _config(arguments: argparse.Namespace) -> Config:
    """What the arguments say and, for the rest, the file that they name as it is now."""
    config = Config()
    if arguments.config is not None:
        check_place(arguments.config, "which says what is done as root")
        config = load_config_if_there(arguments.config)
    store_dir = arguments.store_dir and StoreDir(arguments.store_dir)
    return overridden(config, {**vars(arguments), "store_dir": store_dir})


def _prepare(listener: socket.socket, arguments: argparse.Namespace, config: Config) -> None:
    """Check that the work can be done; where it cannot, those who wait are told why.

    For one who still waited, systemd would start it again at once, and soon give up the socket.
    """
    try:
        check_surroundings()
        os.chdir("/")
        store_dir = config.store_dir.path
        if arguments.view in {None, store_dir}:
            host.make_writable(store_dir)
        check_view(arguments.view or store_dir, store_dir)
    except (StorewardenError, OSError) as cause:
        _refuse_all(listener, cause)
        raise


def _refuse_all(listener: socket.socket, cause: Exception) -> None:
    """Tell those who wait by now that nothing is done for them."""
    listener.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            with listener.accept()[0] as connection:
                _send(connection, encode_end(f"the helper cannot work: {cause}"))


def _serve(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """Answer one connection after the other. A signal ends it between two, never within one."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    where = listener.getsockname()
    _say(6, f"serving {where} for uid {sorted(set(arguments.allow_uid))}")
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
        config = _config(arguments)
        store, log = _store(config, arguments.view), config.audit_log
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


def _store(config: Config, view: str | None) -> Store:
    """The store, with its build users resolved anew: they may have changed since the start."""
    nix = Nix(find_nix(config.nix), config.store_dir, config.state_dir)
    for program in (nix.program, nix.nix_store):
        check_place(program, "which would be run as root (another: --nix)")
    # The configuration may name another store than at the start.
    check_view(view or config.store_dir.path, config.store_dir.path)
    allocated = (host.FIRST_ALLOCATED, host.ALLOCATED, host.PER_SLOT)
    return Store(
        store_dir=config.store_dir,
        state_dir=config.state_dir,
        build_users=build_users(config.build_group, allocated),
        ask_nix=lambda paths: ask(nix, paths),
        processes_of=host.processes_of,
        min_age=config.min_age,
        view=view or config.store_dir.path,
        hidden_uid=host.hidden_uid(),
    )


def _say(level: int, text: str) -> None:
    """One line for the journal, with its priority in front."""
    print(f"<{level}>{text}", file=sys.stderr, flush=True)  # noqa: T201 - the helper's only log


if __name__ == "__main__":
    sys.exit(main())
