# SPDX-License-Identifier: MIT
"""The audit log as whoever may read it sees it: its records, and whether the chain holds."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from storewarden.audit import (
    Chain,
    Intent,
    Members,
    Result,
    Rotated,
    read,
    rotated_files,
    unseal,
)
from storewarden.errors import AuditUnavailableError, BadMessageError, reason_of


class NothingRecordedError(AuditUnavailableError):
    """There is no log at all, not one that could not be read."""


def flaw(members: Members) -> str:
    """Why these members are no record that this program writes, for people; empty if they are."""
    try:
        read(members)
    except BadMessageError as cause:
        return str(cause)
    return ""


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether every record is whole and in its place; if not, where the first is that is not."""

    files: tuple[str, ...]
    records: int
    head: str
    """The hash of the last record: kept elsewhere, it shows later that none was cut off."""
    problem: str = ""
    open_intents: int = 0
    """Removals that were begun and whose end is not on record; the next run concludes them."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One removal, as far as it is on record: what was to be removed, and what became of that."""

    name: str
    kind: str
    time: str
    """UTC, as it stands in the last record of it."""
    status: str
    """As an outcome's; `begun` where no result is on record."""
    reasons: tuple[str, ...]
    files: int
    bytes: int
    seq: int
    """The number of the last record of it."""
    intent: Intent = field(default_factory=lambda: Intent(name=""))
    """Without a name where none is on record."""


def removals(records: Iterable[Members]) -> list[Removal]:
    """Each removal on record, in the order of their last records; what is odd is passed over."""
    begun: dict[int, Intent] = {}
    found: dict[int, Removal] = {}
    for members in records:
        seq, time = members.get("seq"), str(members.get("time"))
        try:
            record = read(members)
        except BadMessageError:
            continue
        match record, seq:
            case Intent() as intent, int(number):
                begun[number] = intent
                found[number] = _removal(intent, Result(status="begun"), number, time)
            case Rotated(open=whole, partial=partial), _:
                more = (*(whole or ()), *(partial or ()))
                begun |= {one.seq: one for one in more if one.seq is not None}
            case Result() as result, int(number):
                op = number if result.op is None else result.op
                found.pop(op, None)  # what was told last stands last
                found[op] = _removal(begun.get(op, Intent(name="")), result, number, time)
    return list(found.values())


def _removal(intent: Intent, result: Result, seq: int, time: str) -> Removal:
    name, many = result.name or intent.name, (result.files, result.bytes)
    return Removal(name, intent.kind, time, result.status, result.reasons, *many, seq, intent)


def log_files(path: str) -> tuple[str, ...]:
    """The rotated files of the log at `path`, oldest first, and itself; those that exist."""
    try:
        rotated = rotated_files(path)
        os.lstat(path)
    except FileNotFoundError:
        return tuple(rotated)
    except NotADirectoryError:
        return ()
    except OSError:
        return (path,)  # it is not known to be absent; opening it tells why
    return (*rotated, path)


def read_records(path: str) -> Iterator[dict[str, object]]:
    """The members of every whole record, oldest first; what is broken is left to `verify`."""
    for _, line in _lines(path, log_files(path)):
        with suppress(BadMessageError):
            yield unseal(line)


def verify(path: str) -> Verification:
    """Walk the chain through all files. A torn line is fine if the next record explains it."""
    chain, files = Chain(), log_files(path)
    for where, line in _lines(path, files):
        before = chain.seq, chain.last
        if problem := chain.follow(line, where):
            return Verification(files, *before, problem)
    return Verification(files, chain.seq, chain.last, chain.why, len(chain.open_intents))


def _lines(path: str, files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    if not files:
        raise NothingRecordedError(f"there is no audit log {path}: nothing was recorded there yet")
    for name in files:
        try:
            with open(name, "rb") as file:
                for number, line in enumerate(file, 1):
                    yield f"{name} line {number}", line
        except OSError as cause:
            advice = "; try: sudo storewarden audit log" if os.geteuid() else ""
            raise AuditUnavailableError(
                f"cannot read the audit log {name}: {reason_of(cause)}{advice}"
            ) from cause
