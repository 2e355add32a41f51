# SPDX-License-Identifier: MIT
"""Each system call that looks at something fails in turn, as on a bad disk (strace injects it).

Whatever fails: nothing alive or valid is moved, nothing ends as a bug does, the audit log is in
order, and what is dead goes then or in the next run.
"""

import os
import random
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helper.bench import at, audit_is_whole, log_of, names, picture, request, run, run_requests
from helper.child import kill_self, killed
from helper.trees import left_private
from storewarden.audit_reading import verify
from storewarden.errors import StorewardenError
from storewarden.protocol import RemoveRequest
from storewarden.store.paths import output_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import alone, holding

CALLS = {"lseek": 30, "fstat": 12, "newfstatat": 16, "openat": 12, "getdents64": 12}
"""How many occurrences of each call fail, drawn by chance; with STOREWARDEN_FAULTS=9999 all do."""
DONE, REFUSED, BUG = 0, 3, 70


def _can_trace() -> bool:
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


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _can_trace(), reason="root with strace makes system calls fail"),
]


@dataclass(slots=True)
class World:
    """A store with what is alive and what is valid, and ever new debris."""

    place: ThrowawayStore
    kept: list[str]
    dead: list[str] = field(default_factory=list)
    rounds: int = 0

    def strand(self) -> list[RemoveRequest]:
        """Two more dead outputs and a lock; the requests for them and for what must stay."""
        self.rounds += 1
        derivations = [self.place.add_derivation(f"dead-{n}-{self.rounds}") for n in range(2)]
        self.dead = [self.place.strand(derivation).base_name for derivation in derivations]
        lock = output_lock(self.place.invent(f"old-{self.rounds}.drv"), "out")
        self.place.add_lock(lock)
        asked = [self.dead[0], *self.kept, self.dead[1], lock]
        return [request(self.place, name) for name in asked]

    def remove(self, asked: list[RemoveRequest]) -> None:
        """What a run does with these requests."""
        run_requests(self.place, asked, store=alone(self.place))

    def interrupt(self) -> list[RemoveRequest]:
        """Have a run killed that has just taken one, so that another has to go on with it."""
        asked = self.strand()
        kill = at("taken", kill_self)
        killed(lambda: run_requests(self.place, asked, store=alone(self.place), checkpoint=kill))
        return []


@pytest.fixture
def world(place: ThrowawayStore) -> Iterator[World]:
    """A live output whose lock is held, and one that is registered."""
    alive = place.add_derivation("alive")
    kept = [place.strand(alive).base_name]
    registered = place.strand(place.add_derivation("registered"))
    place.register(registered)
    place.add_derivation("another")
    with holding(place.path(output_lock(alive, "out"))):
        yield World(place, [*kept, registered.base_name])


def under_strace(work: Callable[[], object], *options: str) -> int:
    """Do the work in a process to which strace is attached; how it ended."""
    waiting, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = BUG
        try:
            os.close(go)
            os.read(waiting, 1)
            work()
            code = DONE
        except StorewardenError as cause:
            os.write(2, f"{cause}\n".encode())
            code = REFUSED
        except BaseException:  # noqa: BLE001 - told to whoever reads the test's output
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(waiting)
    command = ["strace", "-f", "-p", str(pid), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        os.close(go)
        _, status = os.waitpid(pid, 0)
        tracer.communicate()
    return os.waitstatus_to_exitcode(status)


def count(work: Callable[[], object], call: str, directory: Path) -> int:
    """How often the work makes that call."""
    trace = directory / "trace"
    assert under_strace(work, "-o", str(trace), "-e", f"trace={call}", "-e", "signal=none") == DONE
    return trace.read_text(errors="replace").count(f"{call}(")


def lives(world: World) -> dict[bytes, object]:
    """What must be as it was, whatever fails."""
    mine = {name.encode() for name in world.dead}
    seen = picture(world.place.store_dir.path)
    top = len(os.fsencode(world.place.store_dir.path)) + 1
    valid = {name for name in names(world.place) if name.endswith(("drv", "-0", "-1", "-2"))}
    wanted = {name.encode() for name in valid.union(world.kept)} - mine
    return {path: told for path, told in seen.items() if path[top:].split(b"/")[0] in wanted}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("prepare", [World.strand, World.interrupt])
def test_no_call_that_fails_costs_what_lives_or_saves_what_is_dead(
    prepare: Callable[[World], list[RemoveRequest]], call: str, world: World, tmp_path: Path
) -> None:
    asked = prepare(world)
    times = count(lambda: world.remove(asked), call, tmp_path)
    seed = int(os.environ.get("STOREWARDEN_SEED", int.from_bytes(os.urandom(4))))
    print("seed", seed, "of", times)  # noqa: T201 - shown where it fails
    chance = random.Random(seed)  # noqa: S311 - no secret
    most = int(os.environ.get("STOREWARDEN_FAULTS", CALLS[call]))
    for number in sorted(chance.sample(range(1, times + 1), min(times, most))):
        requests = prepare(world)
        before = lives(world)
        fault = f"inject={call}:error=EIO:when={number}"
        ended = under_strace(lambda: world.remove(requests), "-o", "/dev/null", "-e", fault)  # noqa: B023
        assert ended in {DONE, REFUSED}, f"{call} {number} of {times}"
        assert lives(world) == before, f"{call} {number}: something alive or valid was touched"
        assert verify(log_of(world.place)).problem == "", f"{call} {number}"
        world.remove([request(world.place, n) for n in world.dead if n in names(world.place)])
        assert not names(world.place).intersection(world.dead), f"{call} {number}"
        assert not left_private(world.place), f"{call} {number}"
        assert audit_is_whole(world.place), f"{call} {number}"
    assert run(world.place) == []
