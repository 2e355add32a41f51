# SPDX-License-Identifier: MIT
"""Of `make faults` some on real Nix: its debris, beside a build of its own that is alive.

STOREWARDEN_REAL_FAULTS says how many, STOREWARDEN_SEED which.
"""

import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from helper.bench import picture as within
from helper.faults import CALL, DONE, KILLED, REFUSED, Fault, sample, ways
from programs import program
from real import namespace as ns
from real.builds import Build, let_finish, start_build, stranded
from real.furniture import CHECKOUT, own_python
from real.recipes import Recipe
from real.rig import Rig, picture, unregistered, valid_paths
from real.warden import AT_ONCE, audit_log, records, scan, warden
from storewarden.client import encode_request
from storewarden.protocol import RemoveRequest
from storewarden.store.entries import EntryKind, FileId

MOST = int(os.environ.get("STOREWARDEN_REAL_FAULTS", "4"))
SIGKILLED = {-9, 137}


@dataclass(frozen=True, slots=True)
class Machine:
    """A store with something valid, and a build that goes on throughout."""

    rig: Rig
    alive: Build
    valid: frozenset[str]
    before: bytes
    """What there is to see of what is valid, and of the build's locks."""

    def seen(self) -> bytes:
        return picture(*map(self.rig.outside, sorted({*self.valid, *self.alive.locks.values()})))

    def lines(self, debris: Build) -> bytes:
        """A request for all of it, true in all but that it may go."""
        kinds = dict.fromkeys([*debris.entries, *self.alive.entries], EntryKind.OUTPUT)
        kinds |= dict.fromkeys([*debris.locks.values(), *self.alive.locks.values()], EntryKind.LOCK)
        there = [path for path in kinds if os.path.lexists(self.rig.outside(path))]
        ids = {path: FileId.of(os.lstat(self.rig.outside(path))) for path in there}
        return encode_request(
            [RemoveRequest(os.path.basename(path), kinds[path], ids[path]) for path in there]
        )

    def helped(self, debris: Build, *options: str) -> tuple[int, str]:
        """How a helper ended that was asked for it all under strace, and its last words."""
        ours, theirs = socket.socketpair()
        command = [own_python(CHECKOUT), "-I", "-m", "storewarden.helper", "--for-parent=faults"]
        command += [*AT_ONCE, f"--audit-log={audit_log(self.rig)}"]
        with ours:
            ours.sendall(self.lines(debris))
            ours.shutdown(socket.SHUT_WR)
            with theirs:
                process = subprocess.Popen(
                    [*self.rig.namespace.enter, "strace", *options, *command],
                    stdin=theirs.fileno(),
                    stderr=subprocess.PIPE,
                    env=ns.environment(self.rig.namespace, "root"),
                )
            _, said = process.communicate(timeout=60)
        return process.returncode, said.decode(errors="replace")


def machine(rig: Rig) -> Machine:
    with open(f"{rig.base}/scratch/valid", "w", encoding="ascii") as file:
        file.write("valid\n")
    added = ns.run(rig.namespace, ["nix-store", "--add", f"{rig.base}/scratch/valid"])
    assert added.returncode == 0, added.stderr
    alive = start_build(rig, Recipe("alive", ticks=36_000))
    one = Machine(rig, alive, frozenset(valid_paths(rig)), b"")
    return replace(one, before=one.seen())


def faults_of(one: Machine) -> list[Fault]:
    """All that can go wrong from when a helper has the request."""
    trace = f"{one.rig.base}/scratch/trace"
    debris = stranded(one.rig, "undisturbed")
    assert one.helped(debris, "-o", trace, "-e", "signal=none") == (DONE, "")
    assert not {*map(one.rig.outside, debris.entries)} & {*_there(one)}
    with open(trace, "rb") as file:
        calls = [name.decode() for name in CALL.findall(file.read())]
    begun = Counter(calls[: calls.index("recvfrom")])
    return [
        Fault("real", call, number, how)
        for call, times in sorted(Counter(calls).items())
        for number in range(begun[call] + 1, times + 1)
        for how in ways(call)
    ]


def _there(one: Machine) -> list[str]:
    return [entry.path for entry in os.scandir(one.rig.store)]


def wrong(one: Machine, fault: Fault, debris: Build) -> Iterator[str]:
    """What is wrong after it; nothing, as it should be."""
    rig = one.rig
    whole = {path: _within(rig, path) for path in debris.entries}
    status, said = one.helped(debris, "-o", "/dev/null", "-e", fault.option)
    if status not in {DONE, REFUSED} | (SIGKILLED if fault.how == KILLED else set()):
        yield f"it ended with {status}: {said}"
    yield from _hurt(one)
    for path, before in whole.items():
        if os.path.lexists(rig.outside(path)) and _within(rig, path) != before:
            yield f"{path} is there, and not as it was"
    done = warden(rig, "scan", "--yes", *AT_ONCE)
    if done.returncode:
        yield f"the next run: {done.stdout}{done.stderr}"
    yield from _hurt(one)
    # A lock that was made to be held, and could not be removed: it goes when what it covers has.
    made = {f"{path}.lock" for path in one.alive.outputs.values()}
    if left := unregistered(rig) - one.alive.entries - made:
        yield f"the next run left {left}"
    log = records(rig)
    if open_ones := _seqs(log, "intent", "seq") - _seqs(log, "result", "op"):
        yield f"without a result: {open_ones}"
    if lost := {*map(os.path.basename, whole)} - {record.get("name") for record in log}:
        yield f"not on record: {lost}"


def _within(rig: Rig, path: str) -> tuple[object, ...]:
    """All that there is of it; it may have been moved and put back."""
    found = os.lstat(rig.outside(path))
    return found.st_ino, found.st_mode, found.st_size, within(rig.outside(path))


def _seqs(log: Sequence[dict[str, object]], action: str, key: str) -> set[object]:
    return {record[key] for record in log if record["action"] == action}


def _hurt(one: Machine) -> Iterator[str]:
    changed = valid_paths(one.rig) ^ one.valid
    if changed := {path for path in changed if path in one.valid or not path.endswith(".drv")}:
        yield f"no longer valid, or new: {changed}"
    if one.seen() != one.before:
        yield "what is valid, or a lock of the live build, was touched"
    if gone := [p for p in one.alive.entries if not os.path.lexists(one.rig.outside(p))]:
        yield f"the live build has lost {gone}"


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * MOST)
def test_no_system_call_that_fails_costs_what_real_nix_has_or_builds(rig: Rig) -> None:
    program("strace", "strace")
    seed = int(os.environ.get("STOREWARDEN_SEED", int.from_bytes(os.urandom(4))))
    one = machine(rig)
    faults = faults_of(one)
    print(f"seed {seed}: {MOST} of {len(faults)}")  # noqa: T201 - shown where it fails
    found = []
    for number, fault in enumerate(sample(faults, MOST, seed)):
        debris = stranded(rig, f"debris-{number}")
        found += [f"{fault}: {line}" for line in wrong(one, fault, debris)]
    assert found == []
    let_finish(rig, one.alive.recipe)
    assert one.alive.client.process.wait(30) == 0, ns.read(one.alive.log)
    scan(rig, "--yes")
    assert unregistered(rig) == set()
    verified = ns.run(rig.namespace, ["nix-store", "--verify", "--check-contents"])
    assert verified.returncode == 0, verified.stderr
