# SPDX-License-Identifier: MIT
"""`python -m helper.power`: the power fails at any moment of a removal, and what was synced stays.

strace records what real runs of the helper do to the files of a throwaway store and its audit log.
What a power cut leaves of that is made on disk, looked at, and given to the next run.

A sync covers what POSIX says: of a file its bytes and size, of a directory the names in it; a
rename is one step, and covered by a sync of either directory. What was covered stays. The rest:

- in order: of each file system the first operations are kept, up to any of them, as a journal does
  it (ext4, XFS) or a transaction (btrfs, ZFS). The audit log may be on another than the store.
- at random: each may be lost, as on ext4 without a journal, and then what it made possible too.

Either way bytes that no sync has covered may also be lost, be zeros, or be cut off anywhere.

What is done to a file without a name is left out: the mark that a lock file gets after its unlink
is taken to be lost with that, as both change one inode. What SQLite maps it makes anew anyway.
"""

import argparse
import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import interpreter  # noqa: F401 - first of all
from helper.bench import log_of, request, run_requests
from helper.child import kill_self, kill_self_after
from helper.disk import TRACED, Disk, Op, follow, make_disk, read_disk
from helper.faults import (
    World,
    by_entry,
    can_trace,
    helped,
    not_on_record,
    under_strace,
    world,
    wrong_in_store,
    wrong_in_the_end,
)
from storewarden.audit import Members, Result, seal, unseal
from storewarden.audit_reading import log_files, read_records, removals, verify
from storewarden.errors import AuditUnavailableError, BadMessageError
from storewarden.helper.audit import ROTATE_AT, open_log
from storewarden.host import rename_exclusive
from storewarden.protocol import Status
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind
from storewarden.throwaway import ThrowawayStore
from sweeps import alone

STORE, LOG = "nix/store", "log"
_AWAY = 1 << 63
"""Added to the inode of what is no more, so that nothing has it."""
_LONGEST = 1 << 16
"""Bytes of a line that may be a record of an entry."""
MOST = 1000
"""Cuts at random of each scenario."""
_PARTS = 8
_ANOTHER, _UNPROVED = "nix/var/nix/another", "never-proved-dead"


@dataclass(frozen=True, slots=True)
class Cut:
    """The power failed when so many operations were done; which of them were kept, and how.

    "": whole; "z": its bytes are zeros; "c" and a number: so many of its bytes.
    """

    moment: int
    kept: tuple[tuple[int, str], ...]

    def __str__(self) -> str:
        """As it is told on a command line, to be tried again."""
        words, run = [], list[int]()
        for number, how in (*self.kept, (-1, "")):
            if run and (how or number != run[-1] + 1):
                words.append(f"{run[0]}-{run[-1]}")
                run = []
            if how:
                words.append(f"{number}{how}")
            else:
                run.append(number)
        return f"{self.moment}:{','.join(words)}"

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """What that text was made from."""
        moment, _, words = text.partition(":")
        kept = list[tuple[int, str]]()
        for first, last, how in re.findall(r"(\d+)(?:-(\d+))?([zc]?\d*)", words):
            kept += [(number, how) for number in range(int(first), int(last or first) + 1)]
        return cls(int(moment), tuple(kept))


@dataclass(frozen=True, slots=True)
class Recording:
    """What the runs of a scenario did to a disk."""

    one: World
    start: Disk
    ops: Sequence[Op]
    replaced: str
    """What another has exchanged under way, if anything."""

    @property
    def top(self) -> str:
        """The directory in which all of it lies."""
        return _top(self.one.place)

    def synced(self, number: int, moment: int) -> bool:
        """Whether that operation was on disk at that moment, for certain."""
        later = self.ops[number + 1 : moment]
        return any(sync.has_on_disk(self.ops[number]) for sync in later)

    def of_log(self) -> list[bool]:
        """Which of the operations were the audit log's."""
        nodes, found = {self.start.root}, list[bool]()
        begun = self.start.find(LOG)
        nodes = set() if begun is None else {begun, *self.start.nodes[begun].names.values()}
        for op in self.ops:
            made = (self.start.root, LOG) in op.places
            found.append(made or op.node in nodes or any(at in nodes for at, _ in op.places))
            if found[-1]:
                nodes.add(op.node)
        return found

    def left_by(self, cut: Cut) -> Disk:
        """What that cut left."""
        disk = self.start.copy()
        for number, how in cut.kept:
            op = self.ops[number]
            data = bytes(len(op.data)) if how == "z" else op.data
            disk.do(replace(op, data=data[: int(how[1:])] if how[:1] == "c" else data))
        return disk


def in_order(recording: Recording, chance: random.Random) -> Iterator[Cut]:
    """All cuts that keep the first operations of each file system; where bytes end is chance."""
    ops, of_log, seen = recording.ops, recording.of_log(), set[tuple[tuple[int, str], ...]]()
    for moment in range(len(ops), -1, -1):  # of two that leave the same the later one promised more
        synced = [recording.synced(number, moment) for number in range(moment)]
        ends = []
        for side in (False, True):
            done = [n for n in range(moment) if of_log[n] is side and ops[n].what != "sync"]
            least = max((i for i, n in enumerate(done, 1) if synced[n]), default=0)
            ends.append([done[:end] for end in range(least, len(done) + 1)])
        for store, log in itertools.product(*ends):
            numbers = sorted(store + log)
            for how in _HOW:
                kept = tuple(_bytes_kept(recording, numbers, synced, chance, how))
                if kept not in seen:
                    seen.add(kept)
                    yield Cut(moment, kept)


def at_random(recording: Recording, chance: random.Random) -> Iterator[Cut]:
    """Cuts without end that keep any of the operations, and all that were synced."""
    while True:
        moment, likely = chance.randint(0, len(recording.ops)), chance.choice((0.1, 0.5, 0.9))
        synced = [recording.synced(number, moment) for number in range(moment)]
        numbers = [
            n
            for n in range(moment)
            if recording.ops[n].what != "sync" and (synced[n] or chance.random() < likely)
        ]
        yield Cut(moment, tuple(_bytes_kept(recording, numbers, synced, chance)))


_HOW = ("", "lost", "z", "c")


def _bytes_kept(
    recording: Recording,
    numbers: Sequence[int],
    synced: Sequence[bool],
    chance: random.Random,
    how: str | None = None,
) -> Iterator[tuple[int, str]]:
    """Those operations with what became of their bytes: that, or for each something by chance."""
    for number in numbers:
        op, became = recording.ops[number], ""
        if op.what == "write" and not synced[number]:
            became = chance.choice(_HOW) if how is None else how
        if became == "c":
            became = f"c{chance.randrange(len(op.data))}"
        if became != "lost":
            yield number, became


DONE, KILLED = 0, -signal.SIGKILL
Run = tuple[Callable[[ThrowawayStore], int], int]
"""What is done in a process of its own, and with what that ends."""


def _engine(one: World, **steps: Callable[[], object]) -> Callable[[ThrowawayStore], int]:
    """The engine, with what happens when it comes to a step for the first time."""

    def work(place: ThrowawayStore) -> int:
        def checkpoint(step: str) -> None:
            steps.pop(step, lambda: None)()

        run_requests(place, one.asked, store=alone(place), checkpoint=checkpoint)
        return 0

    return work


def _resumed(one: World) -> Iterator[Run]:
    yield _engine(one, taken=kill_self), KILLED
    one.asked = []
    yield helped, DONE


def _replaced(one: World, **steps: Callable[[], object]) -> Iterator[Run]:
    """Another thing takes its place at the last moment, and has to be put back."""
    path, state_dir = one.place.path(one.dead[0]), one.place.state_dir
    os.makedirs(f"{state_dir}/another/{_UNPROVED}")

    def swap() -> None:
        os.rename(path, f"{state_dir}/away")
        os.rename(f"{state_dir}/another", path)

    yield _engine(one, unchanged=swap, **steps), KILLED if steps else DONE
    if steps:
        one.asked = []
        yield helped, DONE


def _kill_after_a_rename() -> None:
    kill_self_after(1, rename_exclusive.__name__)


def _rotated(one: World) -> Iterator[Run]:
    """The log has grown long, and its end is torn."""
    with open_log(log_of(one.place)) as log:
        why = ("x" * ROTATE_AT,)
        long = Result(action="resumed", name="x", status="kept", reasons=why, resumed=1)
        log.append(long)
    with open(log_of(one.place), "ab") as file:
        file.write(b'{"action":"int')
    yield helped, DONE


SCENARIOS: Mapping[str, Callable[[World], Iterator[Run]]] = {
    "first": lambda _: iter([(helped, DONE)]),
    "resumed": _resumed,
    "replaced": _replaced,
    "killed-before-it-is-put-back": lambda one: _replaced(one, taken=kill_self),
    "killed-after-it-was-put-back": lambda one: _replaced(one, taken=_kill_after_a_rename),
    "rotated": _rotated,
}


SLOWER = {"rotated": 10}
"""How many times as long a cut of those takes as one of another."""


@contextmanager
def recorded(scenario: str) -> Iterator[Recording]:
    """What the helper does in that scenario; its place is free for what a power cut left."""
    with world("remove") as one, tempfile.NamedTemporaryFile() as trace:
        top, ops = _top(one.place), list[Op]()
        start = now = Disk(0, {})
        for work, expected in SCENARIOS[scenario](one):
            if not ops:
                start = read_disk(top)
                now = start.copy()
            ended, _, said = under_strace(one, "-o", trace.name, *TRACED, work=work)
            assert ended == expected, said
            ops += follow(now, top, trace.read())
            trace.seek(0)
        done, there = (disk.below(disk.root) for disk in (now, read_disk(top)))
        assert done.keys() == there.keys()
        mapped = {path for path in done if path.endswith("-shm")}
        assert [path for path in done if done[path] != there[path] and path not in mapped] == []
        nodes = {now.find(path) for path in mapped}
        ops = [op for op in ops if op.node not in nodes]
        replaced = one.dead.pop(0) if start.find(_ANOTHER) else ""
        yield Recording(one, start, ops, replaced)


def _top(place: ThrowawayStore) -> str:
    return place.state_dir.removesuffix("/nix/var/nix")


def survived(recording: Recording, cut: Cut) -> list[str]:
    """What is wrong after that cut; nothing, as it should be."""
    try:
        return [*_wrong(recording, cut)]
    except Exception:  # noqa: BLE001 - that it cannot be gone on from is what is wrong
        return [traceback.format_exc()]


def _wrong(recording: Recording, cut: Cut) -> Iterator[str]:
    one, left = recording.one, recording.left_by(cut)
    for entry in os.scandir(recording.top):
        shutil.rmtree(entry)
    _renumber(log_of(one.place), make_disk(left, recording.top))
    yield from _wrong_at_once(recording, left)
    there = one.before = {
        name: seen
        for name, seen in by_entry(one.place).items()
        if not name.startswith(PRIVATE_PREFIX)
    }
    yield from not_on_record(one, there)
    yield from _wrong_in_log(recording, cut)
    one.remove([request(one.place, name) for name in one.dead if name in there])
    if recording.replaced:
        one.before.setdefault(recording.replaced, by_entry(one.place).get(recording.replaced))
        yield from _wrong_with_another(recording)
    yield from wrong_in_store(one, by_entry(one.place))
    yield from wrong_in_the_end(one)


def _wrong_at_once(recording: Recording, left: Disk) -> Iterator[str]:
    """What was never to go is there, and all that has its own name is whole."""
    start, one = recording.start, recording.one
    begun, now = (disk.nodes[disk.find(STORE) or 0].names for disk in (start, left))
    for name, node in begun.items():
        if now.get(name) == node:
            if left.below(node) != start.below(node):
                yield f"{name} is not whole"
        elif name not in {*one.dead, recording.replaced}:
            yield f"{name} is gone"


def _wrong_with_another(recording: Recording) -> Iterator[str]:
    """What took the place of what was proved dead is never removed."""
    place = recording.one.place
    where = (place.path(recording.replaced), f"{place.state_dir}/another")
    if not any(os.path.isdir(f"{path}/{_UNPROVED}") for path in where):
        yield "what was never proved dead is gone"


def _wrong_in_log(recording: Recording, cut: Cut) -> Iterator[str]:
    """All of it that was synced can be read, and follows one on the other."""
    path, of_log = log_of(recording.one.place), recording.of_log()
    synced = set()
    for number, how in cut.kept:
        if of_log[number] and not how and recording.synced(number, cut.moment):
            with suppress(BadMessageError):
                synced.add(_number(unseal(recording.ops[number].data)))
    try:
        found = {_number(members): members for members in read_records(path)}
        verified = verify(path)
    except AuditUnavailableError as cause:
        if synced:
            yield f"what was synced of the audit log is gone: {cause}"
        return
    if lost := synced - found.keys():
        yield f"of the audit log is lost: {lost}"
    if verified.records != max(found, default=0):
        yield f"the audit log does not verify: {verified.problem}"
    for removed in removals(found.values()):
        # A lock file that is there again is empty, as it was, and is removed again.
        gone = removed.status == Status.REMOVED and removed.kind != EntryKind.LOCK
        if gone and _inode(recording.one.place.path(removed.name)) == removed.intent.inode:
            yield f"{removed.name} is there, and on record as removed"


def _inode(path: str) -> int | None:
    return os.lstat(path).st_ino if os.path.lexists(path) else None


def _number(members: Members) -> int:
    return int(str(members["seq"]))


def _renumber(path: str, made: Mapping[int, int]) -> None:
    """Have the records speak of the inodes that were made now, each line that is whole."""
    hashes: dict[object, object] = {}

    def changed(value: object) -> Any:  # noqa: ANN401 - what JSON can carry
        if isinstance(value, list):
            return [*map(changed, value)]
        if not isinstance(value, dict):
            return value
        members = {key: changed(one) for key, one in value.items()}
        if isinstance(inode := value.get("inode"), int):
            members["inode"] = made.get(inode, _AWAY + inode)
        return members

    for name in log_files(path):
        lines = Path(name).read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            if len(line) > _LONGEST:
                continue  # not one of an entry
            with suppress(BadMessageError):
                members = changed(unseal(line))
                was, before = members.pop("hash"), members["prev"]
                sealed = seal({**members, "prev": hashes.get(before, before)})
                hashes[was] = unseal(sealed)["hash"]
                lines[number] = sealed if line.endswith(b"\n") else sealed[:-1]
        Path(name).write_bytes(b"".join(lines))


def cuts(recording: Recording, seed: int, most: int, ordered: int | None = None) -> list[Cut]:
    """All in order, or so many, and so many at random: the same by the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    found = [*in_order(recording, chance)]
    if ordered is not None:
        found = chance.sample(found, min(ordered, len(found)))
    return [*found, *itertools.islice(at_random(recording, chance), most)]


@dataclass(frozen=True, slots=True)
class _Part:
    scenario: str
    seed: int
    most: int
    number: int

    def tried(self) -> tuple[int, list[str]]:
        """How many cuts were tried, and what is wrong after them."""
        with recorded(self.scenario) as recording:
            most = self.most // SLOWER.get(self.scenario, 1)
            tried = cuts(recording, self.seed, most)[self.number :: _PARTS]
            found = [(cut, wrong) for cut in tried for wrong in survived(recording, cut)]
            return len(tried), [f"{self.scenario}/{cut}: {wrong}" for cut, wrong in found]


def main(argv: Sequence[str] | None = None) -> int:
    """Try all in order and so many at random, or one; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="have the power fail in the midst of a removal")
    parser.add_argument("--only", metavar="SCENARIO/CUT", help="that one")
    parser.add_argument("--most", type=int, default=MOST, help="at random, of each scenario")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    if not can_trace():
        raise SystemExit("root with strace records what the helper does")
    if options.only:
        scenario, _, cut = options.only.partition("/")
        with recorded(scenario) as recording:
            lines = survived(recording, Cut.parse(cut))
        print("\n".join(lines or ["nothing is wrong"]))
        return bool(lines)
    print(f"seed {options.seed}", flush=True)
    begin, tried, wrong = time.monotonic(), 0, 0
    parts = [
        _Part(scenario, options.seed, options.most, number)
        for scenario in SCENARIOS
        for number in range(_PARTS)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        for part, (count, lines) in zip(parts, pool.map(_Part.tried, parts), strict=True):
            tried, wrong = tried + count, wrong + len(lines)
            for line in lines:
                print(line)
            print(f"{part.scenario}: {tried} tried, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{tried} tried, {wrong} wrong, {time.monotonic() - begin:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
