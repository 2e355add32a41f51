# SPDX-License-Identifier: MIT
"""From findings to outcomes: through the helper's socket, or by an engine given by the caller."""

import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from storewarden.claims import REMOVED_BY_DEFAULT, Verdict
from storewarden.copyable import REMOVE
from storewarden.errors import BadMessageError, StoreUnreadableError, UnavailableError
from storewarden.protocol import MAX_BATCH, MAX_REQUEST, VERSION, Outcome, RemoveRequest, Status
from storewarden.scan import Finding
from storewarden.store.entries import Entry, EntryKind
from storewarden.strict_json import canonical, load

Remove = Callable[[Sequence[RemoveRequest]], Iterator[Outcome]]
MAX_REPLY = 65536
"""Bytes of one line of a reply."""
_SEND_SECONDS = 10.0
_WAITING_SECONDS = 1.0
_REPLY_SECONDS = 600.0
"""Between two lines of a reply: a large tree takes its time to purge."""


class HelperUnavailableError(UnavailableError):
    """The helper cannot be reached, or does not take requests from this user."""


def request_for(entry: Entry, kind: EntryKind) -> RemoveRequest:
    """The request to remove that entry."""
    return RemoveRequest(entry.base_name, kind, entry.file_id)


def requests_for(
    findings: Iterable[Finding], kinds: Collection[EntryKind] = REMOVED_BY_DEFAULT
) -> tuple[RemoveRequest, ...]:
    """A request for each finding of `kinds` that nothing seen claims, in their order of turns."""
    wanted = [
        finding
        for finding in findings
        if finding.judgement.verdict is not Verdict.KEEP
        and finding.kind in kinds
        and finding.entry is not None
    ]
    requests = [request_for(f.entry, f.kind) for f in wanted if f.entry is not None]
    return tuple(sorted(requests, key=lambda request: request.turn))


def repair(
    requests: tuple[RemoveRequest, ...], remove: Remove, stopped: Callable[[], bool]
) -> Iterator[Outcome]:
    """Have them removed, a batch after the other; `stopped` is asked between two batches."""
    for batch in batches(requests):
        if stopped():
            return
        yield from remove(batch)


def encode_request(requests: tuple[RemoveRequest, ...]) -> bytes:
    """The line that asks for these entries, newline included."""
    entries = [{"name": r.base_name, "kind": r.kind.value, **r.file_id._asdict()} for r in requests]
    return canonical({"v": VERSION, "op": "remove", "entries": entries}) + b"\n"


def batches(requests: tuple[RemoveRequest, ...]) -> tuple[tuple[RemoveRequest, ...], ...]:
    """The requests, in order, in groups that each fit into one line."""
    groups: list[tuple[RemoveRequest, ...]] = []
    current: tuple[RemoveRequest, ...] = ()
    for request in requests:
        grown = (*current, request)
        if len(grown) > MAX_BATCH or len(encode_request(grown)) > MAX_REQUEST:
            groups.append(current)
            grown = (request,)
        current = grown
    return (*groups, current) if current else tuple(groups)


def remove_through(
    socket_path: str, waiting: Callable[[], None] = lambda: None, by_hand: str = REMOVE
) -> Remove:
    """The `Remove` that asks the helper which listens there; `by_hand` is what removes without it.

    `waiting` is called about every second while the helper works; what it raises goes through,
    and the helper ends by itself what it has begun.
    """

    def remove(requests: Sequence[RemoveRequest]) -> Iterator[Outcome]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SEND_SECONDS)
            try:
                connection.connect(socket_path)
                _send(connection, encode_request(tuple(requests)))
                yield from _outcomes(_lines(connection, waiting))
            except OSError as cause:
                reason = (cause.strerror or str(cause)).lower()
                raise HelperUnavailableError(
                    f"the helper at {socket_path} cannot be reached: {reason};"
                    f" to remove without it, outside of any sandbox: {by_hand}"
                ) from cause

    return remove


def _send(connection: socket.socket, line: bytes) -> None:
    try:
        connection.sendall(line)
    except BrokenPipeError:
        return  # refused at once; the reply says why


def _lines(connection: socket.socket, waiting: Callable[[], None]) -> Iterator[bytes]:
    """What the helper sends, line by line; the last may be torn."""
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
            yield data
            return


def _outcomes(lines: Iterator[bytes]) -> Iterator[Outcome]:
    for line in lines:
        if not line.endswith(b"\n"):
            break
        match decode_reply(line):
            case Outcome() as outcome:
                yield outcome
            case "":
                return
            case str(error) if "may not ask" in error:
                raise HelperUnavailableError(error)
            case str(error):
                raise StoreUnreadableError(error)
    raise HelperUnavailableError(
        "the helper ended before its answer did; its log says why, and its next run"
        " finishes what it began"
    )


def decode_reply(line: bytes) -> Outcome | str:
    """One line of a reply: an outcome, or the text of the last line ("" when all went well)."""
    message = load(line)
    if not isinstance(message, dict) or message.get("v") != VERSION:
        raise BadMessageError("the helper speaks another version of the protocol")
    try:
        match message:
            case {"end": True, "error": str(error)}:
                return error
            case {"reasons": list(reasons), "status": status, **rest}:
                del rest["v"]
                return Outcome(status=Status(status), reasons=tuple(map(str, reasons)), **rest)
    except (TypeError, ValueError) as cause:
        raise BadMessageError(f"the helper's answer is not understood: {cause}") from cause
    raise BadMessageError("the helper's answer is not understood")
