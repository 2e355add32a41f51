# SPDX-License-Identifier: MIT
"""`python -m helper.faults`: each system call of a removal is made to fail in turn, by strace.

The helper is the program as it is, told to remove something dead, something alive, something valid
and a lock file; or to go on with what a killed run left, where that is valid by now, or where the
audit log is torn and due to be rotated. At one of its calls strace has the kernel say no, or ends
it. What must hold then is in `survived`.
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import interpreter  # noqa: F401 - first of all
from helper.bench import at, audit_is_whole, log_of, picture, records, request, run_requests
from helper.child import kill_self, killed
from helper.trees import left_private
from storewarden.audit import result_of, unseal
from storewarden.audit_reading import verify
from storewarden.client import decode_reply, encode_request
from storewarden.errors import AuditUnavailableError, BadMessageError
from storewarden.helper.__main__ import main as serve
from storewarden.helper.audit import ROTATE_AT, open_log
from storewarden.protocol import Outcome, RemoveRequest, Status
from storewarden.store.paths import LOCK_SUFFIX, StorePath, output_lock
from storewarden.throwaway import ThrowawayStore, open_store
from sweeps import alone, own_place

ERRORS = ("EIO", "ENOSPC", "EROFS", "EMFILE", "EINTR", "EPERM", "EACCES", "ESTALE", "ENOMEM")
KILLED = "SIGKILL"
_MEMORY = {"mmap", "mprotect", "mremap"}
"""Which the kernel refuses for want of memory alone."""
_SURE = {
    *("brk", "close", "exit_group", "futex", "getegid", "geteuid", "getgid", "getpid", "getppid"),
    *("getuid", "gettid", "madvise", "munmap", "rt_sigaction", "rt_sigreturn", "umask"),
}
"""Which do not fail, or whose failure is asked for by nobody. brk fails by the old end of the heap:
where strace says ENOMEM, the C library takes that for an address."""
DONE, REFUSED, _BUG = 0, 3, 70
"""How a helper ends; the last is for what nobody thought of."""
CALL = re.compile(rb"^(?:\d+ +)?(\w+)\(", re.MULTILINE)
_SECONDS = 60
QUICK = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where no disk has to be waited for: what fails here fails by strace."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What goes wrong: which call of that scenario, the how many-th of its name, and how."""

    scenario: str
    call: str
    number: int
    how: str

    @property
    def option(self) -> str:
        """As strace is told."""
        how = f"signal={self.how}" if self.how == KILLED else f"error={self.how}"
        return f"inject={self.call}:{how}:when={self.number}"

    def __str__(self) -> str:
        """As it is told on a command line, to be tried again."""
        return f"{self.scenario}/{self.call}/{self.number}/{self.how}"


@dataclass(slots=True)
class World:
    """A store with an output that is dead and its kin that are not, and what a sweep asks for."""

    place: ThrowawayStore
    dead: list[str]
    asked: list[RemoveRequest]
    before: dict[str, object]
    """Each entry with all that is in it, as it was."""
    wanted: list[str]
    """What has to be there in the end, if not before: the same as it was."""

    def remove(self, asked: list[RemoveRequest]) -> list[Outcome]:
        """What another run does with these requests."""
        return run_requests(self.place, asked, store=alone(self.place))


@contextmanager
def world(scenario: str) -> Iterator[World]:
    """A new one of that scenario; what is alive in it is so until the end."""
    with tempfile.TemporaryDirectory(prefix="storewarden-faults-", dir=QUICK) as directory:
        os.chmod(directory, 0o711)  # noqa: S103 - the build user has to get in
        place = own_place(directory)
        for number in range(3):
            place.add_valid(f"valid-{number}")
        alive, registered = place.add_derivation("alive"), place.add_derivation("registered")
        kept = [place.strand(alive).base_name, (done := place.strand(registered)).base_name]
        place.register(done)
        dead = place.strand(place.add_derivation("dead")).base_name
        old = output_lock(place.invent("old.drv"), "out")
        place.add_lock(old)
        asked = [request(place, name) for name in (dead, *kept, old)]
        place.hold(place.path(output_lock(alive, "out")))
        before, wanted = by_entry(place), kept
        if scenario != "remove":
            kill = at("taken", kill_self)
            killed(lambda: run_requests(place, asked, store=alone(place), checkpoint=kill))
            asked = []
        if scenario == "put-back":
            place.register(StorePath(dead))
            wanted = [*kept, dead]
        if scenario == "mend":
            long = Outcome("long", Status.FAILED, ("long" * (ROTATE_AT // 4),))
            with open_log(log_of(place)) as log:
                log.append(result_of(long, None, resumed=1))
                os.write(log.fd, b'{"seq":')
        yield World(place, [dead, old], asked, before, wanted)
        place.close()


SCENARIOS = ("remove", "resume", "put-back", "mend")


def by_entry(place: ThrowawayStore) -> dict[str, object]:
    """Each entry of the store with all that is in it, to be compared."""
    entries: dict[str, list[object]] = {}
    start = len(os.fsencode(place.store_dir.path)) + 1
    for path, seen in sorted(picture(place.store_dir.path).items()):
        entries.setdefault(os.fsdecode(path[start:]).split("/")[0], []).append((path, seen))
    return dict(entries)


def helped(place: ThrowawayStore) -> int:
    """What a helper of one's own ends with that serves what is its standard input."""
    options = {"for-parent": "faults", "store-dir": place.store_dir.path, "min-age": "0"}
    options |= {"state-dir": place.state_dir, "audit-log": log_of(place)}
    return serve([f"--{key}={value}" for key, value in options.items()], open_store)


def under_strace(
    one: World, *options: str, work: Callable[[ThrowawayStore], int] = helped
) -> tuple[int, list[Outcome], str]:
    """Have a helper do what is asked for while strace is attached.

    How it ended, what it told, and what it wrote to its standard error.
    """
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            code = _BUG
            try:
                ours.close()
                os.dup2(errors.fileno(), 2)
                os.dup2(theirs.fileno(), 0)
                os.kill(os.getpid(), signal.SIGSTOP)
                code = work(one.place)
            except SystemExit as cause:
                code = cause.code if isinstance(cause.code, int) else _BUG
            except BaseException:  # noqa: BLE001 - it is told
                with suppress(BaseException):
                    os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        theirs.close()
        os.waitpid(pid, os.WUNTRACED)
        command = ["strace", "-p", str(pid), *options]
        with ours, subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            assert b"attached" in (said := tracer.stderr.readline()), said
            ours.sendall(encode_request(one.asked))
            ours.shutdown(socket.SHUT_WR)
            os.kill(pid, signal.SIGCONT)
            told = _told(ours, pid)
            _, status = os.waitpid(pid, 0)
            tracer.communicate()
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), told, errors.read().decode(errors="replace")


def _told(connection: socket.socket, pid: int) -> list[Outcome]:
    """The outcomes of which it tells, until it ends; it is ended where it does not."""
    connection.settimeout(_SECONDS)
    data = b""
    try:
        while more := connection.recv(1 << 16):
            data += more
    except ConnectionResetError:
        pass
    except TimeoutError:
        os.kill(pid, signal.SIGTRAP)  # which shows as how it ended
    replies = []
    for line in data.splitlines(keepends=True):
        with suppress(BadMessageError):
            replies.append(decode_reply(line))
    return [reply for reply in replies if isinstance(reply, Outcome)]


def calls_of(scenario: str) -> Counter[str]:
    """The system calls that such a run makes, and how often each."""
    with world(scenario) as one, tempfile.NamedTemporaryFile() as trace:
        ended, _, said = under_strace(one, "-o", trace.name, "-e", "signal=none")
        assert ended == 0, said
        return Counter(call.decode() for call in CALL.findall(trace.read()))


def all_faults() -> list[Fault]:
    """Everything that can be tried."""
    return [
        Fault(scenario, call, number, how)
        for scenario in SCENARIOS
        for call, times in sorted(calls_of(scenario).items())
        for number in range(1, times + 1, 1 + times // 500)  # one long line is read by thousands
        for how in ways(call)
    ]


def ways(call: str) -> Iterator[str]:
    """How such a call may end."""
    if call in _MEMORY:
        yield "ENOMEM"
    elif call not in _SURE:
        yield from ERRORS
    if call not in {"exit_group", "rt_sigreturn"}:
        yield KILLED


def sample(faults: list[Fault], most: int, seed: int) -> list[Fault]:
    """So many of them by chance, each call and each way to fail as likely as another."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    grouped: dict[tuple[str, str, str], list[Fault]] = {}
    for fault in faults:
        grouped.setdefault((fault.scenario, fault.call, fault.how), []).append(fault)
    for group in grouped.values():
        chance.shuffle(group)
    rounds = chain.from_iterable(zip_longest(*chance.sample([*grouped.values()], len(grouped))))
    return list(islice(filter(None, rounds), most))


def survived(fault: Fault) -> list[str]:
    """What is wrong after it; nothing, as it should be."""
    try:
        with world(fault.scenario) as one:
            ended, told, said = under_strace(one, "-o", "/dev/null", "-e", fault.option)
            return [f"{fault}: {wrong}" for wrong in _wrong(fault, one, ended, told, said)]
    except Exception:  # noqa: BLE001 - that it cannot be gone on from is what is wrong
        return [f"{fault}: {traceback.format_exc()}"]


def _wrong(fault: Fault, one: World, ended: int, told: list[Outcome], said: str) -> Iterator[str]:
    allowed = {DONE, REFUSED, -signal.SIGKILL} if fault.how == KILLED else {DONE, REFUSED}
    if ended not in allowed:
        yield f"it ended with {ended}: {said}"
    there = by_entry(one.place)
    yield from wrong_in_store(one, there)
    for outcome in told:
        gone = outcome.status in {Status.TAKEN, Status.REMOVED, Status.VANISHED}
        if gone and outcome.base_name in there:
            yield f"{outcome.base_name} is there, and it told: {outcome.status}"
    yield from _wrong_on_record(one, there)
    one.remove([request(one.place, name) for name in {*one.dead} - {*one.wanted} if name in there])
    yield from wrong_in_the_end(one)


def wrong_in_store(one: World, there: Mapping[str, object]) -> Iterator[str]:
    for name, before in one.before.items():
        # What is not there may have gone, if it was dead; what is there is whole.
        if name in one.dead and name not in there:
            continue
        if there.get(name) != before:
            yield f"{name} was touched"
    for name in there:
        if name.endswith(LOCK_SUFFIX) and os.lstat(one.place.path(name)).st_size:
            yield f"{name} is poisoned"


def wrong_in_the_end(one: World) -> Iterator[str]:
    place = one.place
    there = by_entry(place)
    if lost := [name for name in one.wanted if there.get(name) != one.before[name]]:
        yield f"not there in the end: {lost}"
    if left := [*there.keys() & {*one.dead} - {*one.wanted}, *left_private(place)]:
        yield f"the next run left {left}"
    if not audit_is_whole(place):
        yield "the next run left the audit log open"
    # A lock file of its own, cut off, is as good as one that Nix leaves.
    if odd := [n for n in there.keys() - one.before.keys() if not n.endswith(LOCK_SUFFIX)]:
        yield f"it left {odd}"


def _wrong_on_record(one: World, there: Container[str]) -> Iterator[str]:
    with suppress(AuditUnavailableError):
        problem = verify(log_of(one.place)).problem
        if problem and not _is_torn(log_of(one.place)):
            yield f"the audit log does not verify: {problem}"
    yield from not_on_record(one, there)


def not_on_record(one: World, there: Container[str]) -> Iterator[str]:
    """What is gone of the dead without an intent."""
    try:
        noted = {record["name"] for record in records(one.place, "intent")}
    except AuditUnavailableError:
        noted = set()
    if lost := {name for name in one.dead if name not in there} - noted:
        yield f"not on record: {lost}"


def _is_torn(path: str) -> bool:
    """Whether its last line is no record: so it is told, and the next run mends it."""
    with open(path, "rb") as file:
        (line,) = deque(file, maxlen=1)
    try:
        unseal(line)
    except BadMessageError:
        return True
    return False


def can_trace() -> bool:
    """Whether strace may be attached to a child here."""
    if os.geteuid() != 0 or shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "60"]) as child:
        command = ["strace", "-e", "trace=none", "-p", str(child.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
            assert tracer.stderr is not None
            attached = b"attached" in tracer.stderr.readline()
            child.terminate()
            tracer.communicate()
    return attached


def main(argv: Sequence[str] | None = None) -> int:
    """Try all, or so many by a seed; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description="make each system call of a removal fail")
    parser.add_argument("--only", metavar="SCENARIO/CALL/NUMBER/HOW", help="that one")
    parser.add_argument("--most", type=int, help="so many, by chance")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    if not can_trace():
        raise SystemExit("root with strace makes system calls fail")
    begin = time.monotonic()
    if options.only:
        scenario, call, number, how = options.only.split("/")
        faults = [Fault(scenario, call, int(number), how)]
    else:
        faults = all_faults()
        print(f"{len({(f.scenario, f.call, f.number) for f in faults})} calls,", end=" ")
        print(f"{len(faults)} ways to fail; seed {options.seed}", flush=True)
    faults = sample(faults, options.most or len(faults), options.seed)
    wrong = 0
    with ProcessPoolExecutor(options.processes) as pool:
        for number, found in enumerate(pool.map(survived, faults, chunksize=8), 1):
            wrong += bool(found)
            for line in found:
                print(line, flush=True)
            if number % 500 == 0:
                print(f"{number} tried, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{len(faults)} tried, {wrong} of them wrong, {time.monotonic() - begin:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
