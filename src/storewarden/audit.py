# SPDX-License-Identifier: MIT
"""The audit log: its records, and where their chain stands. Reads no file and writes none.

JSON Lines, chained by hash: intent before an act, result after it. A chain shows edits and gaps; it
cannot show that the end was cut off, nor what root rewrote whole. The helper writes it
(helper/audit.py), and whoever may read it can check it (audit_reading.py).
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args

from storewarden.errors import BadMessageError
from storewarden.protocol import Outcome, Status
from storewarden.store.entries import FileId
from storewarden.strict_json import canonical, load

T = TypeVar("T")
Members = Mapping[str, object]
"""A record as it stands in the log."""
_FIRST = "0" * 64
_LARGEST = 2**64
_DEEPEST = 4
"""Objects and lists within each other, the record itself included; a rotated one holds intents."""


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asked, as the kernel says; for the audit log, not for any decision."""

    uid: int = 0
    pid: int | None = None
    via: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is about to be removed, and on what proof; None is not on record."""

    action: str = "intent"
    name: str
    kind: str = ""
    device: int = 0
    inode: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    ctime: float = 0
    """Whole seconds since the epoch, or before it."""
    deriver: str = ""
    output: str = ""
    locks: tuple[str, ...] = ()
    """Base names of the path locks that are held."""
    absent: tuple[str, ...] = ()
    """The claims that were seen to be absent, as they were asked."""
    private: str = ""
    """The directory that it is moved to; a lock file is not."""
    program: str = ""
    requester: Requester | None = None
    v: int | None = None
    seq: int | None = None
    """The number of the record that it is or was: its result names it."""
    prev: str | None = None
    time: str | None = None
    hash: str | None = None
    files: int | None = None
    """What earlier runs have removed of it, directories and bytes likewise."""
    directories: int | None = None
    bytes: int | None = None

    @property
    def file_id(self) -> FileId:
        """What it was."""
        return FileId(self.device, self.inode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an entry: of that intent, or (`resumed`) of what lay there without one."""

    action: str = "result"
    op: int | None = None
    name: str = ""
    status: str
    reasons: tuple[str, ...] = ()
    files: int = 0
    directories: int = 0
    bytes: int = 0
    resumed: int | None = None
    """1 where an interrupted removal was finished."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """Torn lines stand before this record: so many bytes of that SHA-256."""

    torn_sha256: str
    torn_bytes: int
    action: str = "recovered"


@dataclass(frozen=True, slots=True)
class Rotated:
    """The last record of its file, which hands on what the next one has to know."""

    open: tuple[Intent, ...] | None = None
    partial: tuple[Intent, ...] | None = None
    action: str = "rotated"


@dataclass(frozen=True, slots=True)
class Other:
    """A record of a version to come, or a test's."""

    action: str
    members: Members = field(default_factory=dict)


Record = Intent | Result | Recovered | Rotated | Other
_TYPES: Mapping[str, type[Any]] = {
    "intent": Intent,
    "result": Result,
    "resumed": Result,
    "recovered": Recovered,
    "rotated": Rotated,
}
_NEEDED = {"result": "op", "resumed": "name"}
"""What tells the two apart, and so must stand in it."""


@dataclass(frozen=True, slots=True)
class _Head:
    """What stands in every record, `hash` beside."""

    v: int
    seq: int
    prev: str
    time: str
    action: str


def result_of(outcome: Outcome, op: int | None, resumed: int | None = None) -> Result:
    """What the log says of an outcome, of the intent of that number if there is one."""
    return Result(
        action="resumed" if op is None else "result",
        op=op,
        name=outcome.base_name,
        status=outcome.status.value,
        reasons=outcome.reasons,
        resumed=resumed,
        **counts_of(outcome),
    )


def counts_of(counted: object) -> dict[str, Any]:
    """What was removed, as far as it was counted there: files, directories, bytes."""
    return {key: getattr(counted, key) or 0 for key in ("files", "directories", "bytes")}


def members_of(record: Record) -> Members:
    """What stands in the log of that record, but for its head; None is left out."""
    if isinstance(record, Other):
        return {**record.members, "action": record.action}
    return asdict(record, dict_factory=_on_record)


def _on_record(members: list[tuple[str, object]]) -> dict[str, object]:
    return {name: value for name, value in members if value is not None}


def read(members: Members) -> Record:
    """The record that these members are; `BadMessageError` says which of them is none of ours.

    A hash says that nobody has changed it since; not that its members are what they are called.
    """
    head = _typed(_Head, members)
    needed, kind = _NEEDED.get(head.action), _TYPES.get(head.action)
    if needed and needed not in members:
        raise BadMessageError(f"{needed!r} is missing in it")
    return _typed(kind, members) if kind else Other(head.action, members)


def _typed(kind: type[T], members: Members) -> T:
    """That dataclass out of its members; what else stands there is of a version to come."""
    given: dict[str, Any] = {}
    for one in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if one.name in members:
            try:
                given[one.name] = _value(one.type, members[one.name])
            except BadMessageError:
                raise BadMessageError(f"{one.name!r} is not what it should be in it") from None
        elif one.default is MISSING:
            raise BadMessageError(f"{one.name!r} is missing in it")
    return kind(**given)


def _value(kind: object, untrusted: object) -> object:
    if type(None) in get_args(kind):
        kind = get_args(kind)[0]  # what is not on record has no member, never null
    match untrusted:
        case str() if kind is str:
            return untrusted
        # type() and not isinstance(): in Python True is an int.
        case int() if type(untrusted) is int and abs(untrusted) < _LARGEST:
            if kind is float or (kind is int and untrusted >= 0):
                return untrusted
        case list() if Ellipsis in get_args(kind):
            return tuple(_value(get_args(kind)[0], one) for one in untrusted)
        case dict() if isinstance(kind, type) and is_dataclass(kind):
            return _typed(kind, untrusted)
    raise BadMessageError("of another type")


def seal(members: Members) -> bytes:
    """The record with the hash over all else in it, as a line with its newline."""
    return canonical({**members, "hash": digest(members)}) + b"\n"


def digest(members: Members) -> str:
    """SHA-256 over the canonical record; `prev` in it chains it to the one before."""
    return hashlib.sha256(canonical(members)).hexdigest()


def unseal(line: bytes) -> dict[str, object]:
    """The members of one audit line, `hash` included; `BadMessageError` where it does not hold."""
    record = load(line)
    if not isinstance(record, dict):
        raise BadMessageError("not an object")
    try:
        deep = _depth(record) > _DEEPEST
    except RecursionError:
        deep = True
    if deep:
        raise BadMessageError("nested deeper than any record")
    if record.get("hash") != digest({key: record[key] for key in record if key != "hash"}):
        raise BadMessageError("its hash does not fit")
    return record


def _depth(value: object) -> int:
    """How many objects and lists stand within each other there."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


@dataclass(slots=True)
class Chain:
    """Where a chain of records stands: folded in the same way by who writes and who verifies it."""

    seq: int = 0
    last: str = _FIRST
    """The hash of the last record: kept elsewhere, it shows later that none was cut off."""
    open_intents: dict[int, Intent] = field(default_factory=dict)
    partial: dict[int, Intent] = field(default_factory=dict)
    """The intents whose last result is that something was left, with what was counted by then."""
    torn: bytes = b""
    """Lines since the last record that hold none."""
    why: str = ""
    """What is wrong with the first of these."""

    @property
    def recovered(self) -> Recovered:
        """The record that explains the torn lines before it."""
        torn = self.torn.rstrip(b"\n")
        return Recovered(hashlib.sha256(torn).hexdigest(), len(torn))

    def follow(self, line: bytes, where: str = "") -> str:
        """Go on by one line; what is wrong, if anything. A torn one may yet be explained."""
        try:
            members = unseal(line)
        except BadMessageError as cause:
            self.torn, self.why = self.torn + line, self.why or f"{where}: {cause}"
            return ""
        problem = self._misfit(members, where)
        self.torn, self.why = b"", ""
        try:
            self.advance(members)
        except BadMessageError as cause:
            return problem or f"{where}: record {self.seq}: {cause}"
        return problem

    def _misfit(self, members: Members, where: str) -> str:
        """Why the record cannot stand here; empty if it can."""
        explains = members.get("action"), members.get("torn_sha256")
        if self.torn and explains != ("recovered", self.recovered.torn_sha256):
            return self.why
        if members.get("prev") != self.last or members.get("seq") != self.seq + 1:
            number = f"{members.get('seq')!s:.20}"
            return f"{where}: record {number} does not follow record {self.seq}"
        return ""

    def advance(self, members: Members) -> None:
        """Move to that record, wherever it is from; `BadMessageError` where it is none of ours."""
        seq = members.get("seq")
        if type(seq) is not int:
            raise BadMessageError("a record without a number")
        self.seq, self.last = seq, str(members.get("hash"))
        match read(members):
            case Intent() as intent:
                self.open_intents[seq] = intent
            case Result(op=int(op), status=status) as result:
                begun = {**self.open_intents, **self.partial}.get(op)
                for intents in (self.open_intents, self.partial):
                    intents.pop(op, None)
                if begun is not None and status == Status.PARTIAL:
                    self.partial[op] = replace(begun, **counts_of(result))
            case Rotated(open=tuple(whole), partial=tuple(partial)):
                self.open_intents, self.partial = _by_number(whole), _by_number(partial)


def _by_number(intents: tuple[Intent, ...]) -> dict[int, Intent]:
    found = {intent.seq: intent for intent in intents if intent.seq is not None}
    if len(found) != len(intents):
        raise BadMessageError("an intent without a number of its own")
    return found


def rotated_files(path: str) -> list[str]:
    """The earlier files of the log at `path`, oldest first; `OSError` if they cannot be listed."""
    directory, name = os.path.split(path)
    stem, _ = os.path.splitext(name)
    try:
        names = os.listdir(directory or ".")
    except FileNotFoundError:
        return []
    old = [n for n in names if n.startswith(f"{stem}-") and n.endswith(".jsonl")]
    return [os.path.join(directory, n) for n in sorted(old)]
