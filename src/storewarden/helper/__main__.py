# SPDX-License-Identifier: MIT
"""`python -I -m storewarden.helper`: the engine behind a Unix socket, one request at a time.

As a service it listens, for users of whom it believes nothing. Or it serves the one process that
has started it, a command of the store's owner, through a socketpair at its standard input, and ends
with it (`--for-parent`, from client.py): then that process has chosen the code and the Nix that run
here, as the same user, so nothing would be gained by refusing either.

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
from collections.abc import Callable, Sequence
from contextlib import suppress

from storewarden import host, protocol
from storewarden.audit import Requester
from storewarden.config import Config, load_config_if_there, overridden
from storewarden.errors import BadMessageError, StorewardenError, UnavailableError, reason_of
from storewarden.helper.engine import remove
from storewarden.helper.surroundings import Met, check_place, check_surroundings, check_view
from storewarden.host.listening import listening, notify
from storewarden.store.nix import Nix, ask, find_nix
from storewarden.store.paths import StoreDir
from storewarden.store.store import Store, build_users

_REQUEST_SECONDS = 10.0
_NIX_SECONDS = 10.0
OpenStore = Callable[[Config, str | None], Store]
"""From a configuration and, where that is not the store directory, a view of it."""


def main(argv: Sequence[str] | None = None, open_store: OpenStore | None = None) -> int:
    """Serve until nobody asks any more or told to end; 0 then.

    2 for wrong use or a wrong configuration, 3 for a broken world, and 130 where a parent that was
    interrupted has it leave at once what it began.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.allow_uid) == (arguments.for_parent is not None):
        parser.error("say who may ask, with --allow-uid UID or --allow-user NAME")
    try:
        if arguments.for_parent is None:
            return _serve(arguments)
        return _serve_parent(arguments, open_store or _store)
    except (StorewardenError, OSError) as cause:
        _say(3, f"storewarden-helper: error: {cause}")
        return 3
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="storewarden-helper", allow_abbrev=False)
    add = parser.add_argument
    add("--allow-uid", type=int, action="append", metavar="UID")
    add("--allow-user", type=_uid_of, action="append", dest="allow_uid", metavar="NAME")
    add("--config", help="the settings, if it is there; others must not be able to change it")
    for key in ("socket", "store-dir", "state-dir", "nix", "build-group", "audit-log"):
        add(f"--{key}", help="instead of what the configuration says")
    add("--for-parent", metavar="WORDS", help="serve who started it, whom the log calls so")
    add("--view", help="where the store directory is writable, if elsewhere")
    add("--min-age", type=float, metavar="SECONDS")
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


def _serve(arguments: argparse.Namespace) -> int:
    """Answer one connection after the other, of who may ask."""
    os.umask(0o077)
    try:
        config = _config(arguments)
    except StorewardenError as cause:
        _say(3, f"storewarden-helper: error: {cause}")
        if os.environ.get("LISTEN_PID") == str(os.getpid()):
            with suppress(OSError), listening("", ()) as listener:
                _refuse_all(listener, cause)
        return 2
    met: Met = {}
    with listening(config.socket, arguments.allow_uid) as listener:
        try:
            check_surroundings()
            prepare(config, arguments.view, met)
        except (StorewardenError, OSError) as cause:
            _refuse_all(listener, cause)
            raise
        wake = _ended_by(signal.SIGTERM, signal.SIGINT)
        where = listener.getsockname()
        _say(6, f"serving {where} for uid {sorted(set(arguments.allow_uid))}")
        notify("READY=1")
        while _is_asked(listener, wake, arguments.idle_exit or None):
            with listener.accept()[0] as connection:
                _answer_client(connection, arguments, met)
        notify("STOPPING=1")
    return 0


def _refuse_all(listener: socket.socket, cause: Exception) -> None:
    """Tell those who wait by now that nothing is done for them, and why.

    For one who still waited, systemd would start it again at once, and soon give up the socket.
    """
    listener.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            with listener.accept()[0] as connection:
                _send(connection, _cannot_work(cause))


def _serve_parent(arguments: argparse.Namespace, open_store: OpenStore) -> int:
    """Answer one request after the other, until the parent closes its end, or has ended."""
    with _from_parent() as parent, suppress(ConnectionError):  # it has ended without listening
        requester = Requester(os.getuid(), os.getppid(), arguments.for_parent)
        # Ctrl-C is the parent's, which knows whether to go on; what it sends means: leave it so.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        wake = _ended_by(signal.SIGTERM)
        try:
            prepare(_config(arguments), arguments.view, {})
        except (StorewardenError, OSError) as cause:
            _send(parent, _cannot_work(cause))
            return 0
        while _is_asked(parent, wake, None) and parent.recv(1, socket.MSG_PEEK):
            _answer(parent, requester, arguments, open_store, lambda _level, _text: None)
    return 0


def _from_parent() -> socket.socket:
    """The end of a socketpair that the process which started this one left at standard input.

    `OSError` for anything else. A connection that came in through a listening socket has that one's
    address, so a unit that passes `--for-parent` (systemd's Accept=yes, launchd's inetd) serves
    nobody; and who passes a pair on through sudo has made it as another user.
    """
    try:
        found = socket.socket(fileno=0)
        kind = (found.family, found.type, os.fstat(0).st_uid)
        named = found.getsockname() or found.getpeername()
    except OSError:
        named = "nothing"
    if named or kind != (socket.AF_UNIX, socket.SOCK_STREAM, os.geteuid()):
        raise OSError("--for-parent is for a socketpair that the parent leaves at standard input")
    return found


def _ended_by(*numbers: signal.Signals) -> int:
    """Let these signals end it between two requests, never within one; where that is to be read.

    Whatever signals the process that started this one kept from itself, these and the ends of
    children come through.
    """
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake


def _is_asked(where: socket.socket, wake: int, patience: float | None) -> bool:
    """Wait until somebody asks there; False when idle for too long, or told to end."""
    ready, _, _ = select.select([where.fileno(), wake], [], [], patience)
    return bool(ready) and wake not in ready


def prepare(config: Config, view: str | None, met: Met) -> None:
    """Have the store writable, and be sure that it is the one."""
    os.chdir("/")
    store_dir = config.store_dir.path
    if view in {None, store_dir} and os.geteuid() == 0:
        try:
            host.make_writable(store_dir)
        except OSError as cause:
            why = f"is mounted read-only and cannot be made writable here: {reason_of(cause)}"
            raise StorewardenError(f"{store_dir} {why}") from cause
    check_view(view or store_dir, store_dir, met)


def _cannot_work(cause: Exception) -> bytes:
    return protocol.encode_end(f"the helper cannot work: {cause}", protocol.EndCode.UNREADABLE)


def _answer_client(connection: socket.socket, arguments: argparse.Namespace, met: Met) -> None:
    try:
        uid, pid = host.peer(connection)
    except OSError as cause:  # macOS, of one that has gone by now; Linux tells of it all the same
        _say(4, f"connection lost: {cause}")
        return
    if uid in arguments.allow_uid:
        requester, of = Requester(uid, pid, "socket"), lambda *what: checked_store(met, *what)
        _answer(connection, requester, arguments, of, _say)
        return
    _say(4, f"uid {uid} (pid {pid}) may not ask")
    error = f"uid {uid} may not ask this helper (see --allow-uid)"
    _send(connection, protocol.encode_end(error, protocol.EndCode.NOT_ALLOWED))


def _answer(
    connection: socket.socket,
    requester: Requester,
    arguments: argparse.Namespace,
    open_store: OpenStore,
    say: Callable[[int, str], None],
) -> None:
    """Do what the request asks for that comes in there, and tell the outcomes as they come."""
    try:
        requests = protocol.decode_request(_read_line(connection))
        config = _config(arguments)
        store, log = open_store(config, arguments.view), config.audit_log
        for outcome in remove(store, requests, audit_log=log, requester=requester):
            level = 3 if outcome.status is protocol.Status.FAILED else 6
            say(level, f"{outcome.base_name}: {outcome.status} {'; '.join(outcome.reasons)}")
            _send(connection, protocol.encode_outcome(outcome))
        _send(connection, protocol.encode_end())
    except (StorewardenError, OSError) as cause:
        say(4, str(cause))
        codes = protocol.EndCode
        code = codes.UNAVAILABLE if isinstance(cause, UnavailableError) else codes.UNREADABLE
        _send(connection, protocol.encode_end(str(cause), code))


def _read_line(connection: socket.socket) -> bytes:
    """One line of at most 4 KiB, within ten seconds; `BadMessageError` otherwise."""
    deadline = time.monotonic() + _REQUEST_SECONDS
    data = b""
    while b"\n" not in data:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            more = connection.recv(protocol.MAX_REQUEST + 1 - len(data))
        except TimeoutError:
            raise BadMessageError("the request did not come in time") from None
        if not more or len(data) + len(more) > protocol.MAX_REQUEST:
            raise BadMessageError(f"a request is one line of at most {protocol.MAX_REQUEST} bytes")
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


def checked_store(
    met: Met, config: Config, view: str | None, seconds: float = _NIX_SECONDS
) -> Store:
    """As `_store`, for whoever asks, and of the very directories that were `met` before.

    Nix has so many seconds to answer.
    """
    nix = _nix(config, seconds)
    for program in (nix.program, nix.nix_store):
        check_place(program, "which would be run as root (another: --nix)")
    # The configuration may name another store than at the start.
    check_view(view or config.store_dir.path, config.store_dir.path, met)
    return _store(config, view, seconds)


def _nix(config: Config, seconds: float) -> Nix:
    return Nix(find_nix(config.nix), config.store_dir, config.state_dir, seconds)


def _store(config: Config, view: str | None, seconds: float = _NIX_SECONDS) -> Store:
    """The store, with its build users resolved anew: they may have changed since the start."""
    nix = _nix(config, seconds)
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
