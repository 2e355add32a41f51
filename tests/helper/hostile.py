# SPDX-License-Identifier: MIT
"""`python -m helper.hostile`: builders and clients that mean harm, while root removes their debris.

A round is a store with debris of a build user, whose processes attack it in several ways at once
(`attacks`), as children of a build that holds that user's lock, so that they keep nothing alive.
Meanwhile the debris is asked for again and again: of a helper behind its socket, which others flood
with requests that lie; or of the engine, which sees no process at all and is killed now and then.
What must hold during that and in the end is in `wrong_meanwhile` and `_wrong_in_the_end`.
"""

import argparse
import ctypes
import fcntl
import os
import random
import signal
import socket
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

import interpreter  # noqa: F401 - first of all
from helper.attacks import ATTACKS, MOUNT, Target, garbage, go_on, hands_of
from helper.bench import audit_is_whole, records, request, run_requests
from helper.child import become_user, in_child
from helper.faults import QUICK
from helper.serving import CLIENT, Helper, exchange, serving, socket_of
from helper.trees import left_private
from storewarden.claims import PROOF
from storewarden.client import batches, encode_request
from storewarden.errors import StorewardenError
from storewarden.host import PER_SLOT
from storewarden.protocol import RemoveRequest
from storewarden.store.entries import PRIVATE_PREFIX, EntryKind
from storewarden.store.paths import LOCK_SUFFIX, StorePath, output_lock, path_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, look_at, own_place, user_lock

SECONDS = 0.8
"""How long a round is attacked."""
_SUBREAPER = 36
_RUNS = 6
"""So many it takes at most, once nobody attacks, until nothing is left of what was planted."""
Seen = tuple[object, ...]
Ask = Callable[[Sequence[RemoveRequest]], list[str]]


@dataclass(slots=True)
class Stage:
    """A store with debris, and beside it what nobody may lose."""

    place: ThrowawayStore
    chance: random.Random
    debris: list[str]
    free: list[str]
    victims: list[str]
    """Paths, each with all below it."""
    shared: str
    """A valid file that the debris has a hard link to."""
    alive: list[str]
    """Names of which the helper is told lies: valid, registered, being built."""
    before: dict[str, Seen] = field(default_factory=dict)

    def seen(self) -> dict[str, Seen]:
        """All that there is to see of the victims, but when they were read."""
        found = {}
        for victim in self.victims:
            for top, directories, files in os.walk(victim):
                for path in (top, *(f"{top}/{name}" for name in (*directories, *files))):
                    found[path] = _looked_at(path, shared=path == self.shared)
            if not os.path.isdir(victim):
                found[victim] = _looked_at(victim, shared=victim == self.shared)
        return found

    def requests(self) -> list[RemoveRequest]:
        """For what there is now of its debris, and of what was planted."""
        found = []
        for name in filter(StorePath.maybe, (*self.debris, *self.free)):
            with suppress(OSError, ValueError):  # it has gone
                found.append(request(self.place, name))
        return found


def _looked_at(path: str, *, shared: bool) -> Seen:
    found = os.lstat(path)
    content: object = b""
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    elif stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    owned = found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, content
    # Of a file with links in debris those go.
    return owned if shared else (*owned, found.st_nlink, found.st_ctime_ns)


@contextmanager
def stage(chance: random.Random) -> Iterator[Stage]:
    """A new one; what is alive in it is so until the end."""
    with tempfile.TemporaryDirectory(prefix="storewarden-hostile-", dir=QUICK) as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - the build user has to get in
        place = own_place(directory)
        os.chown(place.store_dir.path, 0, place.builder)  # as the group of build users has it
        outside = f"{directory}/outside"
        for name in ("", "closed"):
            os.mkdir(f"{outside}/{name}", 0o700 if name else 0o755)
        for name, mode in {"file": 0o644, "setuid": 0o4755, "closed/file": 0o600}.items():
            with open(f"{outside}/{name}", "w", encoding="ascii") as file:
                os.fchmod(file.fileno(), mode)
                file.write(name)
        valid = [place.add_valid(f"valid-{number}") for number in range(3)]
        neighbour = replace(place, builder=place.builder + PER_SLOT)
        drvs = [place.add_derivation(name) for name in ("alive", "registered")]
        kept = [neighbour.strand(drv) for drv in drvs]
        place.register(kept[1])
        held = output_lock(drvs[0], "out")
        place.hold(place.path(held))
        dead = [place.add_derivation(f"dead-{number}") for number in range(3)]
        scratches = [place.strand(drv) for drv in dead]
        debris = [path.base_name for path in scratches]
        shared = place.path(valid[0].base_name)
        for name in debris:
            _furnish(place, name, shared, outside)
        free = [output_lock(drv, "out") for drv in dead] + [path_lock(one) for one in scratches]
        free += [place.invent(name).base_name for name in ("odd", "odd.drv", "odd.drv.chroot")]
        free += [f"{PRIVATE_PREFIX}1-{number}" for number in range(2)]
        wanted = [path.base_name for path in (*valid, *drvs, *dead, *kept)]
        victims = [outside, *map(place.path, (*wanted, held))]
        one = Stage(place, chance, debris, free, victims, shared, [*wanted, held])
        one.before = one.seen()
        yield one
        place.close()
        os.chmod(directory, 0o700)


def _furnish(place: ThrowawayStore, name: str, shared: str, outside: str) -> None:
    top = place.path(name)
    for below in ("a/b/c", "b/closed", "mounted"):
        os.makedirs(f"{top}/{below}")
    for number in range(50):
        os.mkfifo(f"{top}/a/{number}")
    os.symlink(outside, f"{top}/b/to-outside")
    os.link(shared, f"{top}/a/shared")
    for directory, _, names in os.walk(top):
        for path in (directory, *(f"{directory}/{one}" for one in names)):
            if path != f"{top}/a/shared":
                os.lchown(path, place.builder, place.builder)
    os.chmod(f"{top}/b/closed", 0)


def _forked(work: Callable[[], object]) -> int:
    """The pid of a child that does this work, and then ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - told to whoever started it
            os.write(2, traceback.format_exc().encode())
        os._exit(0)
    return pid


def _end_all(uid: int) -> None:
    """End every process of that user, as Nix does it (`killUser`)."""

    def work() -> None:
        become_user(uid)
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    with suppress(ChildProcessError):  # where nobody is waited for
        os.waitpid(_forked(work), 0)


@contextmanager
def attacked(one: Stage, attacks: Sequence[str], clients: Sequence[int]) -> Iterator[None]:
    """While a build of the owner of the debris attacks it, and these users ask for other things."""
    ours, theirs = socket.socketpair()
    lies = [(request(one.place, name), kind) for name in one.alive for kind in PROOF]
    lines = [encode_request([replace(asked, kind=kind)]) for asked, kind in lies]

    def worker() -> None:
        ours.close()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what hops leaves many behind
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        lock = os.open(f"{one.place.state_dir}/{user_lock(one.place)}", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = one.place.store_dir.path
        hands, store_fd = hands_of(store, one.debris), os.open(store, os.O_RDONLY)
        children = []
        for attack in attacks:
            chance = random.Random(one.chance.getrandbits(32))  # noqa: S311 - no secret
            outside = one.victims[0]
            target = Target(store, one.debris, one.free, outside, hands, store_fd, chance)
            children.append(_forked(partial(_attack, one.place.builder, attack, target)))
        for uid in clients:
            chance = random.Random(one.chance.getrandbits(32))  # noqa: S311 - no secret
            children.append(
                _forked(partial(_flood, uid, socket_of(one.place), garbage(chance, lines)))
            )
        theirs.send(b"!")
        theirs.recv(1)  # until the other end is closed, however it came to that
        _end_all(one.place.builder)
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.wait()  # for all of them, as none is to be told of

    pid = _forked(worker)
    theirs.close()
    with ours:
        assert ours.recv(1) == b"!", "the attack did not begin"
        try:
            yield
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            os.waitpid(pid, 0)


def _attack(uid: int, attack: str, target: Target) -> None:
    theirs = {target.store_fd, *target.hands}
    os.closerange(3, min(theirs))  # the lock is the worker's alone
    become_user(uid)
    go_on(attack, target)


def _flood(uid: int, path: str, sent: Iterator[bytes]) -> None:
    become_user(uid)
    while True:
        with suppress(Exception):
            exchange(path, next(sent))


def survived(seed: int, seconds: float = SECONDS) -> tuple[Counter[str], list[str]]:
    """What became of a round's requests, and what is wrong after it; nothing, as it should be."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    attacks = chance.sample([*ATTACKS, MOUNT], chance.randrange(2, 5))
    counts = Counter(attacks)
    try:
        with stage(chance) as one:
            wrong = []
            if chance.random() < 0.5:
                with serving(one.place) as helper:
                    ask = _through(helper)
                    wrong += fought(one, attacks, (CLIENT, one.place.builder), ask, counts, seconds)
            else:
                wrong += fought(one, attacks, (), _by_engine(one), counts, seconds)
            wrong += _wrong_in_the_end(one)
            results = records(one.place, "result")
            counts["put back"] = sum("put back" in str(told["reasons"]) for told in results)
            counts["removed in all"] = sum(told["status"] == "removed" for told in results)
    except Exception:  # noqa: BLE001 - that it cannot be gone on from is what is wrong
        wrong = [traceback.format_exc()]
    return counts, [f"seed {seed}, {'+'.join(attacks)}: {line}" for line in wrong]


def fought(
    one: Stage,
    attacks: Sequence[str],
    clients: Sequence[int],
    ask: Ask,
    counts: Counter[str],
    seconds: float,
) -> list[str]:
    """What is wrong after so many seconds in which the debris was attacked, and asked for so."""
    with attacked(one, attacks, clients):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for batch in batches(one.requests()):
                counts.update(ask(batch))
    return [*wrong_meanwhile(one)]


def _through(helper: Helper) -> Ask:
    def ask(requests: Sequence[RemoveRequest]) -> list[str]:
        lines = helper.ask(encode_request(requests))
        return [str(line.get("status") or line.get("code") or "answered") for line in lines]

    return ask


def _by_engine(one: Stage) -> Ask:
    """By the engine in a process of its own, which takes its time, or is killed."""

    def dawdle(step: str) -> None:
        # Longest where nothing but the locks keeps others from exchanging it.
        time.sleep(one.chance.random() * (0.04 if step == "unchanged" else 0.002))

    def work(requests: Sequence[RemoveRequest]) -> list[str]:
        try:
            told = run_requests(one.place, [*requests], store=alone(one.place), checkpoint=dawdle)
        except StorewardenError as cause:
            return [type(cause).__name__]
        return [outcome.status for outcome in told]

    def ask(requests: Sequence[RemoveRequest]) -> list[str]:
        one.chance.random()  # each child has another future
        if one.chance.random() < 0.7:
            told: list[str] = in_child(lambda: work(requests))
            return told
        pid = _forked(lambda: work(requests))
        time.sleep(one.chance.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return ["killed"]

    return ask


def wrong_meanwhile(one: Stage) -> Iterator[str]:
    """What has become of the victims, and of locks."""
    now = one.seen()
    for path in sorted(one.before.keys() | now.keys()):
        if one.before.get(path) != now.get(path):
            yield f"{path} was {one.before.get(path)} and is {now.get(path)}"
    for name in os.listdir(one.place.store_dir.path):
        with suppress(FileNotFoundError):
            found = os.lstat(one.place.path(name))
            locks = name.endswith(LOCK_SUFFIX) and stat.S_ISREG(found.st_mode)
            if locks and found.st_uid == 0 and found.st_size:
                yield f"{name} is poisoned"


def _wrong_in_the_end(one: Stage) -> Iterator[str]:
    place = one.place
    for _ in range(_RUNS):
        if not (left := _left(one)):
            break
        requests = [request(place, name) for name in left if StorePath.maybe(name)]
        for batch in batches(requests) or ((),):
            run_requests(place, [*batch], store=alone(place))
    else:
        yield f"left after {_RUNS} runs: {left}"
    yield from wrong_meanwhile(one)
    if not audit_is_whole(place):
        yield "the audit log is not whole"
    for record in records(place, "intent"):
        if record["name"] in one.alive:
            yield f"it meant to remove {record['name']}"
        if record["uid"] != place.builder and record["kind"] != EntryKind.LOCK:
            yield f"{record['name']} is of uid {record['uid']}"


def _left(one: Stage) -> list[str]:
    """Debris that is still there, and root's private directories."""
    found = look_at(alone(one.place), (EntryKind.OUTPUT, EntryKind.LOCK))
    names = [name for name in found if name not in one.alive]
    private = left_private(one.place)
    return names + [name for name in private if os.lstat(one.place.path(name)).st_uid == 0]


def main(argv: Sequence[str] | None = None) -> int:
    """Rounds for so many seconds, or one by its seed; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="builders and clients that mean harm")
    parser.add_argument("--only", type=int, metavar="SEED", help="that round")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    if os.geteuid() != 0 or sys.platform != "linux":
        raise SystemExit("root on Linux tries this, with processes of other users")
    if options.only is not None:
        counts, lines = survived(options.only)
        print("\n".join(lines or [f"nothing is wrong; {_told(counts)}"]))
        return bool(lines)
    print(f"seed {options.seed}", flush=True)
    begin, rounds, wrong = time.monotonic(), 0, 0
    total: Counter[str] = Counter()
    with ProcessPoolExecutor(options.processes) as pool:
        while time.monotonic() < begin + options.seconds:
            first = options.seed + rounds
            seeds = range(first, first + 4 * options.processes)
            for counts, lines in pool.map(survived, seeds):
                rounds, wrong = rounds + 1, wrong + bool(lines)
                total += counts
                for line in lines:
                    print(line, flush=True)
    print(f"{rounds} rounds, {wrong} wrong, {time.monotonic() - begin:.0f} s; {_told(total)}")
    return bool(wrong)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
