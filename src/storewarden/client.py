# SPDX-License-Identifier: MIT
"""The one way in which anything is removed: a helper is asked for it, in the protocol's lines.

The store's owner (root, nearly always) starts one, which ends with the removal; anybody else asks
the service's, at its socket.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import storewarden
from storewarden.claims import REMOVED_BY_DEFAULT, Verdict
from storewarden.config import Config
from storewarden.errors import (
    BadMessageError,
    StoreUnreadableError,
    StorewardenError,
    UnavailableError,
    reason_of,
)
from storewarden.observe import open_nix, this_store
from storewarden.protocol import (
    MAX_BATCH,
    MAX_REQUEST,
    VERSION,
    EndCode,
    Outcome,
    RemoveRequest,
    Status,
)
from storewarden.readable import REMOVE, shown
from storewarden.scan import Finding
from storewarden.store.entries import Entry, EntryKind
from storewarden.store.store import Store
from storewarden.strict_json import canonical, load

Remove = Callable[[Sequence[RemoveRequest]], Iterator[Outcome]]
"""Has these removed, in this order, and gives the outcomes as they come.

With none at all it has finished what an earlier run left behind.
"""
MAX_REPLY = 65536
"""Bytes of one line of a reply."""
_SEND_SECONDS = 10.0
_WAITING_SECONDS = 1.0
_REPLY_SECONDS = 600.0
"""Between two lines of a reply: a large tree takes its time to purge."""
_LEAVING_SECONDS = 10.0
"""For a helper of our own to leave what it began; that is the next run's then, killed or not."""
IMPORT_THIS = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
import storewarden
del sys.path[0]
"""
"""Lets an isolated Python use this very package, wherever its first argument says that it is.

By itself it does not find what pip put below somebody's home, or what PYTHONPATH tells of.
"""
_HELPER = f"""\
{IMPORT_THIS}
from storewarden.helper.__main__ import main
sys.exit(main())
"""
"""What `-m storewarden.helper` does."""
Connect = Callable[[], AbstractContextManager[socket.socket]]
"""Gives the connection on which a helper takes one request."""


class HelperUnavailableError(UnavailableError):
    """The helper cannot be reached, or does not take requests from this user."""


class HelperKilledError(UnavailableError):
    """A signal ended the helper that this process started, in the middle of a removal."""


def request_for(entry: Entry, kind: EntryKind) -> RemoveRequest:
    """The request to remove that entry."""
    return RemoveRequest(entry.base_name, kind, entry.file_id)


def requests_for(
    findings: Iterable[Finding], kinds: Collection[EntryKind] = REMOVED_BY_DEFAULT
) -> tuple[RemoveRequest, ...]:
    """A request for each finding of `kinds` that nothing seen claims, in their order of turns."""
    requests = [
        request_for(finding.entry, finding.kind)
        for finding in findings
        if finding.judgement.verdict is not Verdict.KEEP
        and finding.kind in kinds
        and finding.entry is not None
    ]
    return tuple(sorted(requests, key=lambda request: request.turn))


def removes_here(store: Store) -> bool:
    """Whether this process may start a helper of its own: the store's owner may."""
    try:
        uid = os.stat(store.store_dir.path).st_uid
    except OSError as cause:
        raise StoreUnreadableError(
            f"cannot look at the store directory {store.store_dir.path}: {reason_of(cause)}"
        ) from cause
    return uid == os.geteuid() and uid != store.hidden_uid


def may_connect(socket_path: str) -> bool:
    """Whether there is a helper's socket that lets this user in. Nobody is woken for that."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(socket_path).st_mode)
    except OSError:
        return False
    return is_socket and os.access(socket_path, os.W_OK)


def by_hand() -> str:
    """What the audit log says of a person who asks."""
    sudo = os.environ.get("SUDO_UID")
    return f"by sudo of uid {sudo}" if sudo else "by hand"


def open_remover(
    config: Config,
    store: Store,
    via: str,
    waiting: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Remove:
    """How this process has entries removed: by a helper of its own, or by that of the service.

    `via` is what the audit log says of who asks. `waiting` is called about every second while a
    helper works; what it raises goes through, and the helper ends by itself what it has begun.
    `stopped` is asked before each batch of a few entries; the rest is left then.
    """
    if not removes_here(store):
        by_root = this_store(config).command(REMOVE)
        return remove_through(config.socket, waiting, stopped, by_root)
    return own_helper(config, via, waiting, stopped)


def own_helper(
    config: Config,
    via: str,
    waiting: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
    program: str = _HELPER,
) -> Remove:
    """As `open_remover`, by a child of this process, which runs that program."""
    command = _command(config, via, program)
    return lambda requests: _removed(_child(command), requests, waiting, stopped)


def remove_through(
    socket_path: str,
    waiting: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
    by_root: str = REMOVE,
) -> Remove:
    """As `open_remover`, by the helper that listens there; `by_root` is what removes without it."""
    return lambda requests: _removed(_service(socket_path, by_root), requests, waiting, stopped)


def _removed(
    helper: AbstractContextManager[Connect],
    requests: Sequence[RemoveRequest],
    waiting: Callable[[], None],
    stopped: Callable[[], bool],
) -> Iterator[Outcome]:
    with helper as connect:
        for batch in batches(requests) if requests else ((),):
            if requests and stopped():
                return
            with connect() as connection:
                connection.settimeout(_SEND_SECONDS)
                with suppress(BrokenPipeError):  # refused at once; the reply says why
                    connection.sendall(encode_request(batch))
                yield from _outcomes(_lines(connection, waiting))


@contextmanager
def _service(socket_path: str, by_root: str) -> Iterator[Connect]:
    """The service's helper, which takes one request a connection."""

    @contextmanager
    def connect() -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SEND_SECONDS)
            connection.connect(socket_path)
            yield connection

    try:
        yield connect
    except EOFError:
        raise HelperUnavailableError(
            "the helper ended before its answer did; its log says why, and its next run"
            " finishes what it began"
        ) from None
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise HelperUnavailableError(
            f"the helper at {socket_path} cannot be reached: {reason};"
            f" to remove without it, as root and outside of any sandbox: {by_root}"
        ) from cause


@contextmanager
def _child(command: Sequence[str]) -> Iterator[Connect]:
    """A helper that is started for this, takes one request after the other, and then ends.

    Where this process does not live to tell it so, it ends by itself once it is done with the
    request at work. No terminal reaches it: Ctrl-C is for this process, which interrupts it only if
    it does not wait for the request either.
    """
    ours, theirs = socket.socketpair()
    # Ctrl-C waits until there is somebody to end, who in turn lets it in when it can be ended.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # It says nothing but why it breaks, if it does: to whom this process says it.
                stderr=None if sys.stderr else subprocess.DEVNULL,
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
                start_new_session=True,
            )
    except OSError as cause:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.close()
        raise HelperUnavailableError(f"cannot start {command[0]}: {reason_of(cause)}") from cause
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield lambda: nullcontext(ours)
    except (KeyboardInterrupt, GeneratorExit):  # nobody listens to what becomes of it
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING_SECONDS)
        process.kill()
        raise
    except (EOFError, OSError) as cause:
        ours.close()
        raise _ended(process.wait()) from cause
    finally:
        ours.close()
        process.wait()


def _command(config: Config, via: str, program: str) -> list[str]:
    """What starts a helper for the store of that configuration, in this very package."""
    place = os.path.dirname(os.path.abspath(storewarden.__path__[0]))
    options = {
        "--for-parent": via,
        "--store-dir": config.store_dir.path,
        "--state-dir": config.state_dir,
        "--nix": open_nix(config).program,
        "--build-group": config.build_group,
        "--audit-log": os.path.abspath(config.audit_log),
        "--min-age": config.min_age,
    }
    caches = ["-B"] if sys.dont_write_bytecode else []
    if sys.pycache_prefix:
        caches += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    arguments = [f"{key}={value}" for key, value in options.items() if value is not None]
    return [sys.executable, "-I", *caches, "-c", program, place, *arguments]


def _ended(status: int) -> UnavailableError:
    """Why a helper of our own did not end its answer, by how it ended."""
    rest = "the next run finishes what it began"
    if status < 0:
        return HelperKilledError(f"the helper was ended by signal {-status}; {rest}")
    return HelperUnavailableError(f"the helper ended before its answer did, with {status}; {rest}")


def batches(requests: Sequence[RemoveRequest]) -> tuple[tuple[RemoveRequest, ...], ...]:
    """The requests, in order, in groups that each fit into one line."""
    groups: list[tuple[RemoveRequest, ...]] = []
    for request in requests:
        grown = (*groups[-1], request) if groups else ()
        if groups and len(grown) <= MAX_BATCH and len(encode_request(grown)) <= MAX_REQUEST:
            groups[-1] = grown
        else:
            groups.append((request,))
    return tuple(groups)


def encode_request(requests: Sequence[RemoveRequest]) -> bytes:
    """The line that asks for these entries, newline included."""
    entries = [{"name": r.base_name, "kind": r.kind.value, **r.file_id._asdict()} for r in requests]
    return canonical({"v": VERSION, "op": "remove", "entries": entries}) + b"\n"


def _lines(connection: socket.socket, waiting: Callable[[], None]) -> Iterator[bytes]:
    """What the helper sends, line by line; `EOFError` where it sends no more, or no line."""
    connection.settimeout(_WAITING_SECONDS)
    data, heard = b"", time.monotonic()
    while True:
        waiting()
        try:
            more = connection.recv(MAX_REPLY)
        except TimeoutError:
            if time.monotonic() - heard > _REPLY_SECONDS:
                raise
            continue
        heard = time.monotonic()
        *lines, data = (data + more).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if not more or len(data) > MAX_REPLY:
            raise EOFError


def _outcomes(lines: Iterator[bytes]) -> Iterator[Outcome]:
    for reply in map(decode_reply, lines):
        if reply is None:
            return
        if not isinstance(reply, Outcome):
            raise reply
        yield reply


def decode_reply(line: bytes) -> Outcome | StorewardenError | None:
    """One line of a reply: an outcome; or of the last one its error, None when all went well."""
    message = load(line)
    if not isinstance(message, dict) or message.get("v") != VERSION:
        raise BadMessageError("the helper speaks another version of the protocol")
    try:
        match message:
            case {"end": True, "error": str(error)}:
                return _error(error, message.get("code")) if error else None
            case {"reasons": list(reasons), "status": status, **rest}:
                del rest["v"]
                outcome = Outcome(status=Status(status), reasons=tuple(map(str, reasons)), **rest)
                counts = outcome.files, outcome.directories, outcome.bytes
                types = [*map(type, (outcome.base_name, outcome.unproved, *counts))]
                if types == [str, bool, int, int, int] and min(counts) >= 0:
                    return outcome
    except (TypeError, ValueError) as cause:
        why = shown(str(cause))  # it quotes what came
        raise BadMessageError(f"the helper's answer is not understood: {why}") from cause
    raise BadMessageError("the helper's answer is not understood")


def _error(text: str, code: object) -> StorewardenError:
    """What that end is here; the words decide nothing. Helpers of 0.1 give no code."""
    match code:
        case EndCode.NOT_ALLOWED:
            return HelperUnavailableError(text)
        case EndCode.UNAVAILABLE:
            return UnavailableError(text)
        case None:
            return HelperUnavailableError(
                f"{text}; that helper is of an older storewarden than this program: storewarden"
                " status says what to do"
            )
        case _:
            return StoreUnreadableError(text)
