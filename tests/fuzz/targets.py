# SPDX-License-Identifier: MIT
"""What reads what others wrote, and the law of each: one table, for `make fuzz` and for its tests.

A law takes any bytes at all, and a directory to put them in where a file is read. It returns where
they were read or refused as they should be; whatever it raises is a bug.
"""

import io
import json
import os
import re
import socket
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import interpreter  # noqa: F401 - first of all
from storewarden.audit import Chain, Intent, seal, unseal
from storewarden.audit_reading import Verification, flaw, read_records, removals, verify
from storewarden.claims import PROOF
from storewarden.cli.audit import (
    record_line,
    removal_details,
    removal_json,
    removal_line,
    verification_lines,
)
from storewarden.cli.explain import reading_json, reading_lines
from storewarden.cli.service import document_of
from storewarden.client import decode_reply, encode_request
from storewarden.config import ConfigError, load_config, parse_config
from storewarden.doctor.builds import recorded_outputs
from storewarden.errors import BadMessageError, StoreUnreadableError, StorewardenError
from storewarden.explain.buildlog import MOST_PATHS, BuildLog, Reading
from storewarden.helper import before_build
from storewarden.helper.__main__ import _read_line
from storewarden.helper.audit import open_log
from storewarden.nix_queries import (
    parse_daemon_version,
    parse_features,
    parse_settings,
    parse_version,
    registration_in,
)
from storewarden.observe import registered_bytes, unregistered_names
from storewarden.protocol import (
    MAX_BATCH,
    EndCode,
    Outcome,
    decode_request,
    encode_end,
    encode_outcome,
)
from storewarden.readable import json_text
from storewarden.store.database import Outputs, connect, registered, sample
from storewarden.store.derivation import chroot_locks, find_origins, outputs_of
from storewarden.store.entries import BuildUsers, Entry, FileId, classify
from storewarden.store.floating import outputs_in
from storewarden.store.nix import SilentError, parse_path_info
from storewarden.store.paths import (
    LockName,
    StoreDir,
    StorePath,
    covered_paths,
    output_lock,
    parse_lock_name,
    path_lock,
    scratch_path,
)
from storewarden.store.store import YES, Store
from storewarden.strict_json import load

CORPUS = Path(__file__).parent / "corpus"
STORE = StoreDir("/nix/store")
Law = Callable[[bytes, str], None]


@dataclass(frozen=True, slots=True)
class Target:
    """A reader, by its law; some share what they are tried with."""

    name: str
    law: Law
    corpus: str
    """The directory of its inputs, below `CORPUS`."""

    @property
    def inputs(self) -> list[Path]:
        """Those that are in the repository."""
        return sorted((CORPUS / self.corpus).iterdir())


# The wire.


def request(untrusted: bytes, _place: str) -> None:
    """What comes in at the helper's socket is a request, or ends with a code and one line."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(untrusted)
        try:
            requests = decode_request(_read_line(ours))
        except StorewardenError as refused:
            in_one_line(refused)
            told = decode_reply(encode_end(str(refused), EndCode.UNREADABLE))
            assert type(told) is StoreUnreadableError
            return
    assert len({one.base_name for one in requests}) == len(requests) <= MAX_BATCH
    for one in requests:
        assert as_nix_reads_a_name(one.base_name)
        assert all(0 <= number < 2**64 for number in one.file_id)
    assert decode_request(encode_request(requests)) == requests


def reply(untrusted: bytes, _place: str) -> None:
    """What a helper answers is an outcome that can be shown, the end, or not understood."""
    try:
        told = decode_reply(untrusted)
    except BadMessageError as refused:
        in_one_line(refused)
        return
    if isinstance(told, Outcome):
        counts = told.files, told.directories, told.bytes
        assert isinstance(told.base_name, str)
        assert [*map(type, (told.unproved, *counts))] == [bool, int, int, int]
        assert min(counts) >= 0
        assert decode_reply(encode_outcome(told)) == told


# Names.


def as_nix_reads_a_name(base_name: str) -> bool:
    """Whether `StorePath::StorePath` and `checkName` (path.cc, 2.35.2) take it, by each letter."""
    if len(base_name) < 33 or base_name[32] != "-":
        return False
    hash_part, name = base_name[:32], base_name[33:]
    if any(one in "eotu" or not ("0" <= one <= "9" or "a" <= one <= "z") for one in hash_part):
        return False
    if not 1 <= len(name) <= 211 or name.startswith((".-", "..-")) or name in {".", ".."}:
        return False
    return all(one.isascii() and (one.isalnum() or one in "+-._?=") for one in name)


def names(untrusted: bytes, place: str) -> None:
    """Only what Nix takes for a name is a store path, and only such temp roots count."""
    texts = untrusted.split(b"\0")
    good = [text for one in texts if as_nix_reads_a_name(text := os.fsdecode(one))]
    assert [one.base_name for text in texts if (one := StorePath.maybe(os.fsdecode(text)))] == good
    os.makedirs(f"{place}/temproots", exist_ok=True)
    rooted = b"\0".join(b"/nix/store/" + text for text in texts)
    Path(f"{place}/temproots/1").write_bytes(rooted + b"\0")
    found = store_in(place).temp_roots(lambda _fd: True)
    assert {one.base_name for one in found} == set(good)
    with suppress(StorewardenError):
        one = STORE.parse(os.fsdecode(untrusted))
        assert os.fsencode(STORE.join(one.base_name)) == untrusted


def lock_names(untrusted: bytes, _place: str) -> None:
    """A lock's name is read in every way in which Nix could have made it, and in no other."""
    name = os.fsdecode(untrusted)
    locked, dot, suffix = name.rpartition(".")
    made = set()
    if dot and suffix == "lock" and as_nix_reads_a_name(locked):
        made = {LockName(StorePath(locked), None)}
        for at in range(len(locked)):
            derivation, output = locked[:at], locked[at + 1 :]
            named = derivation.endswith(".drv") and as_nix_reads_a_name(derivation)
            if locked[at] == "." and named and output:
                made.add(LockName(StorePath(derivation), output))
    readings = parse_lock_name(name)
    assert (set(readings), len(readings)) == (made, len(made))
    for one in readings:
        assert name == (
            path_lock(one.locked) if one.output is None else output_lock(one.locked, one.output)
        )
    assert all(as_nix_reads_a_name(one.base_name) for one in covered_paths(name, STORE))


# Derivations.


_TEXT = r'"((?:[^"\\]|\\.)*)"'
_OUTPUT = re.compile(rf"\({_TEXT},{_TEXT},{_TEXT},{_TEXT}\)", re.DOTALL)


def as_nix_reads_outputs(derivation: str) -> list[tuple[str, str]] | None:
    """Names and paths as `parseDerivation` (derivations.cc) has them; None if one is not plain."""
    at, rows = len("Derive(["), []
    while derivation.startswith("Derive([") and (row := _OUTPUT.match(derivation, at)):
        at = row.end() + 1
        rows.append(row.groups())
        if derivation.startswith("],[", row.end()):
            plain = all(row[0] and "\\" not in "".join(row) for row in rows)
            return [(name, path) for name, path, *_ in rows] if plain else None
        if not derivation.startswith(",", row.end()):
            return None
    return None


def derivation(untrusted: bytes, place: str) -> None:
    """A `.drv` is read as Nix reads it or refused, by all three who read it."""
    text = untrusted.decode("utf-8", "surrogateescape")
    plain: list[tuple[str, str]] | None = None
    with suppress(ValueError):
        plain = outputs_in(text)
    assert plain == as_nix_reads_outputs(text)
    path = StorePath(f"{'1' * 32}-x.drv")
    Path(place, path.base_name).write_bytes(untrusted)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError, ValueError):
            for name, _ in outputs_of(fd, path):
                assert LockName(path, name) in parse_lock_name(output_lock(path, name))
        locks = chroot_locks(fd, f"{path.base_name}.chroot", STORE) or ()
        assert list(locks) == sorted(one for one in set(locks) if parse_lock_name(one))
    finally:
        os.close(fd)
    with redirect_stderr(io.StringIO()) as said:
        failed = before_build.main("/dev/null", f"{place}/{path.base_name}")
    assert said.getvalue().count("\n") == failed
    assert plain is None or not failed or not text.isprintable()


# Nix's database.


ROOTS = [
    f"{n}lgc4ahskjfzkpvqvckr0dpwzs5ly0sk-{name}"
    for n, name in enumerate(("one", "one.drv", "two.drv", "two-dev", "three.lock", "four.drv.tmp"))
]
"""What is registered in the whole databases of the corpus, all of it root's."""
DEAD = scratch_path(StorePath(ROOTS[1]), "out", STORE).base_name
"""What is there and not registered, and can be removed."""


def store_in(place: str) -> Store:
    """The store whose state is there, and whose Nix takes all for valid."""
    users = BuildUsers(30000, frozenset({30001}), 872415232, 2**23, 2**16)
    return Store(
        STORE, place, users, lambda paths: dict.fromkeys(paths, YES), lambda _: [], 0, place
    )


def database(untrusted: bytes, place: str) -> None:
    """Whatever a database says, no path of root's is ever removed; or it is refused in one line.

    SQLite has no sums, so that a changed byte can make any path look unregistered.
    """
    os.makedirs(f"{place}/db", exist_ok=True)
    for name in os.listdir(f"{place}/db"):
        os.unlink(f"{place}/db/{name}")
    Path(place, "db/schema").write_text("10", encoding="ascii")
    Path(place, "db/db.sqlite").write_bytes(untrusted)
    store = store_in(place)
    questions: tuple[Callable[[], object], ...] = (
        lambda: removable(store) - {DEAD},
        lambda: not isinstance(recorded_outputs(place, STORE), int),
        lambda: not isinstance(registered_bytes(store), int | None),
    )
    for wrong in questions:
        try:
            assert not wrong()
        except StoreUnreadableError as refused:
            in_one_line(refused)


def doubted(store: Store) -> set[str]:
    """Of the names that are there, those that the database does not have, however it is asked."""
    there = [*ROOTS, DEAD]
    with connect(store.state_dir) as connection:
        rest, count, absent = unregistered_names(connection, STORE, there)
        assert rest <= set(there)
        assert count >= len(absent)
        assert not set(absent) & set(there)
        valid, sampled = sample(connection, STORE)
        assert valid >= len([one for one in sampled if one])
        paths = [*map(StorePath, there)]
        return rest | {p.base_name for p in paths if not registered(connection, STORE, p)}


def removable(store: Store) -> set[str]:
    """Of the names that are there, those that are of a kind to be removed, were they all root's."""
    paths = [*map(StorePath, sorted(doubted(store)))]
    with connect(store.state_dir) as connection:
        origins = find_origins(store, -1, paths, [*ROOTS, DEAD], Outputs(connection, STORE))
    found = set()
    for path in paths:
        entry = Entry(path.base_name, FileId(1, 2), stat.S_IFREG | 0o444, 1, 0, 0, 9, 1, 1.0)
        users = store.build_users
        if classify(entry, origins.get(path), store_uid=0, build_users=users) in PROOF:
            found.add(path.base_name)
    return found


# The audit log.


Content = tuple[list[dict[str, object]], bytes]
"""The records of a log, and all that is torn in it."""


@cache
def known_heads() -> Mapping[str, Content]:
    """What stands in the whole logs of the corpus up to each record, by the hash of that one."""
    known: dict[str, Content] = {"0" * 64: ([], b"")}
    for path in (CORPUS / "audit").glob("whole-*"):
        with open(path, "rb") as file:
            lines = [*file]
        for number in range(1, len(lines) + 1):
            records, torn = content_of(lines[:number])
            known.setdefault(str(records[-1]["hash"]), (records, torn))
    return known


def content_of(lines: Iterable[bytes]) -> Content:
    """What is a record in those lines, and what is not."""
    records: list[dict[str, object]] = []
    torn = b""
    for line in lines:
        try:
            records.append(unseal(line))
        except BadMessageError:
            torn += line
    return records, torn.rstrip(b"\n")


def audit_log(untrusted: bytes, place: str) -> None:
    """A log that verifies is, word by word, one that was written; and any can be shown."""
    path = _written_log(untrusted, place)
    found, records = _read_log(path)
    if not found.problem:
        with open(path, "rb") as file:
            assert known_heads()[found.head] == content_of(file)
        assert len(records) == found.records


def audit_records(untrusted: bytes, place: str) -> None:
    """Whatever its records say, well chained: it is judged and shown, and written on."""
    chain, lines = Chain(), []
    for line in untrusted.split(b"\n"):
        members: object = None
        with suppress(BadMessageError):
            members = load(line)
        if isinstance(members, dict):
            head = {"v": 1, "seq": chain.seq + 1, "prev": chain.last, "time": "-"}
            with suppress(RecursionError):
                lines.append(seal({**head, **{k: members[k] for k in members if k != "hash"}}))
                chain.follow(lines[-1])
    path = _written_log(b"".join(lines), place)
    found, records = _read_log(path)
    assert found.problem or not any(map(flaw, records))
    damaged = any([*map(Chain().follow, lines)])
    with open_log(path) as log:
        number = log.append(Intent(name="next"))
    after, last = verify(path), [*read_records(path)][-1]
    assert (last["seq"], last["name"]) == (number, "next")
    assert bool(after.problem) == damaged


def _written_log(untrusted: bytes, place: str) -> str:
    os.makedirs(f"{place}/log", exist_ok=True)
    path = f"{place}/log/audit.jsonl"
    Path(path).write_bytes(untrusted)
    return path


def _read_log(path: str) -> tuple[Verification, list[dict[str, object]]]:
    found, records = verify(path), [*read_records(path)]
    safe(verification_lines(found))
    safe(map(record_line, records))
    json_text({"records": records})
    for one in removals(records):
        safe([removal_line(one), *removal_details(one)])
        json_text(removal_json(one, STORE.path))
    return found, records


# The configuration.


_PLACE = re.compile(r"at line \d+|at end of document|in position \d+|longer than|recursion|nested")


def configuration(untrusted: bytes, place: str) -> None:
    """It is read as it says, or refused with the file and the line or the key."""
    path = f"{place}/config.toml"
    Path(path).write_bytes(untrusted)
    try:
        config = load_config(path)
    except ConfigError as refused:
        in_one_line(refused)
        file, _, told = str(refused).partition(": ")
        document: dict[str, object] = {}
        with suppress(ValueError, RecursionError):
            document = tomllib.loads(untrusted.decode("utf-8"))
        keys = [start for key in document for start in (f"{key}: ", f"unknown key {key[:60]!r}")]
        where = told.startswith(tuple(keys)) or _PLACE.search(told)
        assert (file, bool(where)) == (path, True), told
        return
    document = document_of(config)
    json.dumps(document)
    assert parse_config(document) == config


# A build's log.


def build_log(untrusted: bytes, _place: str) -> None:
    """It is read to its end wherever it is cut, and what is told of it is safe to show."""
    whole = reading_of([untrusted])
    assert whole == reading_of(untrusted[at : at + 1] for at in range(len(untrusted)))
    assert whole.lines <= untrusted.count(b"\n") + untrusted.count(b"\r") + 1
    for paths in (whole.failed, *(one.paths for one in whole.seen)):
        assert len(paths) <= MOST_PATHS
        assert all(STORE.parse(one) for one in paths)
    safe(reading_lines(whole))
    json.loads(reading_json(whole))


_LONG = 64 * 1024


def long_log(untrusted: bytes, _place: str) -> None:
    """The same over and over: what costs more than in proportion to its length takes minutes."""
    if untrusted:
        reading_of([untrusted * max(1, _LONG // len(untrusted))])


def reading_of(pieces: Iterable[bytes]) -> Reading:
    """What is read of a log that comes in those pieces."""
    reader = BuildLog(STORE)
    for piece in pieces:
        reader.feed(piece)
    return reader.reading()


# Nix's answers.


def nix_answer(untrusted: bytes, _place: str) -> None:
    """What Nix prints is understood or not; none is not valid without Nix's plain word."""
    with suppress(BadMessageError):
        for path, said in parse_path_info(untrusted, STORE).items():
            assert as_nix_reads_a_name(path.base_name)
            if said is None:
                assert b"null" in untrusted or b"false" in untrusted
            else:
                assert isinstance(said["narHash"], str | dict)
                registration_in(said, STORE)
    for parse in (parse_settings, parse_daemon_version):
        with suppress(SilentError):
            parse(untrusted)
    parse_features(untrusted)
    parse_version(untrusted.decode("utf-8", "replace"))


# What all of them keep.


def in_one_line(refused: Exception) -> None:
    """A person can be told why, and a log has one entry of it, whatever it was."""
    assert len(str(refused).splitlines()) == 1, str(refused)


def safe(lines: Iterable[str]) -> None:
    """Nothing in them is a command to a terminal."""
    for line in lines:
        assert line.isascii()
        assert line.isprintable() or not line


TARGETS = (
    Target("request", request, "request"),
    Target("reply", reply, "reply"),
    Target("names", names, "names"),
    Target("lock-names", lock_names, "names"),
    Target("derivation", derivation, "derivation"),
    Target("database", database, "database"),
    Target("audit-log", audit_log, "audit"),
    Target("audit-records", audit_records, "audit-records"),
    Target("config", configuration, "config"),
    Target("build-log", build_log, "build-log"),
    Target("long-log", long_log, "build-log"),
    Target("nix-answer", nix_answer, "nix-answer"),
)
