# SPDX-License-Identifier: MIT
"""Builds, a collector and the real engine around one scratch path, with real flocks, by chance.

What the model in `search.py` goes through step by step is done here by the program itself, which is
met at its checkpoints. Nix's side is as its source has it: pathlocks.cc, gc.cc, user-lock.cc.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helper.bench import at, audit_is_whole, names, request, run_requests
from helper.child import dies, kill_self
from helper.faults import QUICK
from helper.trees import left_private
from storewarden.protocol import Status
from storewarden.store.entries import PRIVATE_PREFIX
from storewarden.store.paths import output_lock
from sweeps import own_place

STEPS = ("proved", "intended", "unchanged", "taken", "purging", "purged")
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


@dataclass(slots=True)
class Worker:
    """A worker of Nix: its temp root, its lock file, and what its builder made."""

    root: int
    lock: int
    builds: bool = False
    inode: int = 0
    held: ExitStack = field(default_factory=ExitStack)


class Store(RuleBasedStateMachine):
    """One store, and all who come and go in it."""

    @initialize()
    def begin(self) -> None:
        self.things = ExitStack()
        directory = self.things.enter_context(tempfile.TemporaryDirectory(prefix="sw-", dir=QUICK))
        os.chmod(directory, 0o711)  # noqa: S103 - the build user has to get in
        self.place = own_place(directory)
        for number in range(3):
            self.place.add_valid(f"valid-{number}")
        self.derivation = self.place.add_derivation("x")
        self.scratch = self.place.strand(self.derivation)
        self.lock = self.place.path(output_lock(self.derivation, "out"))
        self.top = self.place.path(self.scratch.base_name)
        self.workers: list[Worker] = []
        self.orphans: list[subprocess.Popen[bytes]] = []
        self.count = 0

    def inode(self) -> int:
        with suppress(FileNotFoundError):
            return os.lstat(self.top).st_ino
        return 0

    @precondition(lambda self: len(self.workers) < 2)
    @rule(goes=st.integers(0, 2))
    def a_worker_comes(self, goes: int = 0) -> None:
        self.count += 1
        root = os.open(f"{self.place.state_dir}/temproots/{self.count}", FLAGS, 0o600)
        fcntl.flock(root, fcntl.LOCK_EX)
        os.write(root, os.fsencode(self.place.path(self.derivation.base_name)) + b"\0")
        self.workers.append(Worker(root, os.open(self.lock, FLAGS, 0o600)))
        for _ in range(goes):
            self.a_worker_goes_on(-1)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1))
    def a_worker_goes_on(self, which: int) -> None:
        worker = self.workers[which % len(self.workers)]
        if not worker.builds:
            with suppress(BlockingIOError):
                fcntl.flock(worker.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                worker.builds = os.fstat(worker.lock).st_size == 0
                if not worker.builds:
                    os.close(worker.lock)
                    worker.lock = os.open(self.lock, FLAGS, 0o600)
        elif not worker.inode:
            self.end_orphans()  # as Nix does with all processes of a uid that it takes
            if not self.inode():
                self.place.add_output(self.scratch)
            worker.inode = self.inode()
        else:
            # What is registered leads elsewhere; a collector may have been quicker.
            if self.inode() == worker.inode:
                self.count += 1
                os.rename(self.top, f"{self.place.state_dir}/final-{self.count}")
            with suppress(FileNotFoundError):
                os.unlink(self.lock)
            os.write(worker.lock, b"d")
            self.leave(worker)

    def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        os.close(worker.lock)
        os.close(worker.root)

    @precondition(lambda self: self.workers)
    @rule(which=st.integers(0, 1), lives=st.booleans())
    def a_worker_is_killed(self, which: int, *, lives: bool) -> None:
        worker = self.workers[which % len(self.workers)]
        if worker.inode and lives and not self.orphans:
            user = self.place.builder if os.geteuid() == 0 else None
            self.orphans.append(subprocess.Popen(["sleep", "600"], user=user))
        self.leave(worker)

    @precondition(lambda self: self.orphans)
    @rule()
    def end_orphans(self) -> None:
        while self.orphans:
            with self.orphans.pop() as orphan:
                orphan.kill()

    @rule()
    def garbage_is_collected(self) -> None:
        with open(f"{self.place.state_dir}/gc.lock", "w+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            for name in names(self.place):
                path = self.place.path(name)
                if name.startswith(PRIVATE_PREFIX):
                    fd = os.open(path, os.O_RDONLY)
                    with suppress(BlockingIOError):
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(path)
                    os.close(fd)
                elif name.endswith(".lock") and not (self.workers and path == self.lock):
                    os.unlink(path)
            # Nix's own collector deletes the output of a live build too; that is a control of the
            # model. Here it would hide what the engine does.
            if self.inode() and not any(worker.inode for worker in self.workers):
                shutil.rmtree(self.top)

    @precondition(lambda self: self.count and self.inode())
    @rule(
        step=st.sampled_from(STEPS),
        act=st.sampled_from(["a_worker_comes", "a_worker_goes_on", "a_worker_is_killed", "killed"]),
        which=st.integers(0, 1),
    )
    def the_engine_is_met(self, step: str, act: str, which: int) -> None:
        asked = [request(self.place, self.scratch.base_name)]
        before = {worker.inode for worker in self.workers if worker.inode}
        alive = self.inode() in before or bool(self.orphans)
        if act == "killed":
            met, orphans = at(step, kill_self), [orphan.pid for orphan in self.orphans]
            # No children of the process that dies.
            store = replace(self.place.as_store(), processes_of=lambda _: orphans)
            dies(lambda: run_requests(self.place, asked, store=store, checkpoint=met))
            assert not alive or self.inode() == asked[0].file_id.inode
            return
        does = {
            "a_worker_comes": lambda: len(self.workers) < 2 and self.a_worker_comes(),
            "a_worker_goes_on": lambda: self.workers and self.a_worker_goes_on(which),
            "a_worker_is_killed": lambda: (
                self.workers and self.a_worker_is_killed(which, lives=False)
            ),
        }
        outcomes = run_requests(self.place, asked, checkpoint=at(step, does[act]))
        if alive:  # what an earlier removal of that name was killed at is told first
            *_, own = (one for one in outcomes if one.base_name == asked[0].base_name)
            assert (own.status, self.inode()) == (Status.KEPT, asked[0].file_id.inode)

    @invariant()
    def what_a_live_builder_made_is_where_it_made_it(self) -> None:
        for worker in self.workers:
            if worker.inode:
                assert self.inode() == worker.inode

    @invariant()
    def no_lock_that_is_linked_has_a_size(self) -> None:
        for name in names(self.place):
            assert not name.endswith(".lock") or os.lstat(self.place.path(name)).st_size == 0

    def teardown(self) -> None:
        if not hasattr(self, "things"):
            return
        with self.things:
            for worker in [*self.workers]:
                self.leave(worker)
            self.end_orphans()
            for _ in range(2):
                there = [self.scratch.base_name] * bool(self.inode())
                run_requests(self.place, [request(self.place, name) for name in there])
            assert not self.inode()
            assert not left_private(self.place)
            assert not os.path.exists(f"{self.place.state_dir}/../log") or audit_is_whole(
                self.place
            )


TestStore = pytest.mark.slow(Store.TestCase)
TestStore.settings = settings(
    max_examples=int(os.environ.get("STOREWARDEN_EXAMPLES", "100")),
    stateful_step_count=15,
    deadline=None,
)
