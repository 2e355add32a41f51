# SPDX-License-Identifier: MIT
"""Builds started and interrupted at random, and what became of each: well, or by whose doing not.

A build that failed is told apart by evidence. On debris: its builder says that something of
another user lay there when it began. By the collector: that says itself which paths it deleted,
and Nix's own deletes the output of a live floating build without a sandbox. All others are ours.
"""

import contextlib
import glob
import os
import random
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from signal import SIGINT, SIGKILL
from subprocess import TimeoutExpired

from lab import jobs, service
from real import namespace as ns
from real.rig import Rig, unregistered, valid_paths
from storewarden import audit_reading
from storewarden.store.paths import StoreDir, StorePath, scratch_path

_LOOK = """
ps -eo pid,ppid,user,stat,etimes,wchan:24,args --forest
cat /proc/locks
for task in /proc/$1/task/*; do echo "$task $(cat $task/wchan)"; cat $task/syscall $task/stack; done
ls -li /nix/store | grep '[.]lock$'
journalctl --no-pager --lines 60
"""
"""Who is at work, who holds what, and what that process waits for."""
AT_A_TIME = 6
SWEPT = {0, 5}
"""How a sweep ends that has removed all that may go, or something was in its way."""
NAMES = 12  # few, so that what was stranded is soon built again
_DELETED = re.compile(r"^deleting '(/nix/store/[^']+)'", re.MULTILINE)
_COPY = """
head -c 100000 /dev/urandom > "$1"
path=$(nix-store --add "$1")
nix-store --export "$path" > "$1.export"
nix-store --delete "$path"
nix-store --import < "$1.export"
"""
_WORKS = r"^{name} works on (\d+)\.$"


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    generation: int
    log: str
    client: ns.Child
    began: float
    ends_at: float
    """When it is interrupted, if it has not ended before."""


@dataclass(slots=True)
class Death:
    """Debris, from the end of its builder until it is gone."""

    path: str
    inode: int
    builder: int
    at: float | None = None
    """None while its builder outlives the worker."""
    gone: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A build that failed and had not met debris."""

    began: float
    ended: float
    said: str


@dataclass(frozen=True, slots=True)
class Collection:
    began: float
    ended: float
    deleted: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What became of the builds."""

    good: int = 0
    interrupted: int = 0
    wedged: int = 0
    """Failed by debris that they had found, as without storewarden."""
    refused: int = 0
    """Ended before a builder began, as the daemon was being restarted."""
    hung: list[str] = field(default_factory=list)
    """Clients that went on after Ctrl-C, and what they waited for."""
    failures: list[Failure] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Paths that the database has, and the disk has not."""
    deaths: list[Death] = field(default_factory=list)
    generations: dict[str, int] = field(default_factory=dict)
    """How often each name was made another derivation: when it was built, or never can be."""
    collections: list[Collection] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    """What was done beside the builds."""
    registered: set[str] = field(default_factory=set)
    """Paths that the database was seen to have at any time."""
    failed: list[str] = field(default_factory=list)
    """What of that did not end well, and what it said."""

    def hurt(self) -> list[str]:
        """What builds had said that only storewarden can have hurt, and what was collected."""
        told = ((one.said, self._collected(one)) for one in self.failures)
        return [
            f"{said}\ncollected meanwhile: {' '.join(paths)}"
            for said, paths in told
            if not any(path in said for path in paths)
        ]

    def _collected(self, one: Failure) -> list[str]:
        """What Nix's own collector deleted while that build was at work."""
        return [
            path
            for collection in self.collections
            if collection.began < one.ended and one.began < collection.ended
            for path in collection.deleted
        ]

    def line(self, suite: str, beside: str, seconds: float, log: str) -> dict[str, object]:
        """All of it in a few numbers; `log` is the audit log of who removed."""
        waits = waits_for(self.deaths, removed_inodes(log))
        return {
            "suite": suite,
            "beside": beside,
            "seconds": round(seconds),
            "good": self.good,
            "interrupted": self.interrupted,
            "failed on debris": self.wedged,
            "lost valid paths": len(self.lost),
            "live builds hurt by us": len(self.hurt()),
            "live builds hurt by gc": len(self.failures) - len(self.hurt()),
            "refused by the daemon": self.refused,
            **({"clients that hung": self.hung} if self.hung else {}),
            **self.acts,
            "debris": len(self.deaths),
            "debris removed by us": len(waits),
            "median seconds from death to gone": round(statistics.median(waits), 2)
            if waits
            else None,
            "longest": round(max(waits), 2) if waits else None,
        }


def soak(rig: Rig, chance: random.Random, tally: Tally, seconds: float) -> None:
    """Keep builds going for that long, then wait for the last; nothing else may use the store."""
    running: list[Running] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or running:
        if len(running) < AT_A_TIME and time.monotonic() < end:
            taken = {one.name for one in running}
            free = [f"soak{n}" for n in range(NAMES) if f"soak{n}" not in taken]
            running.append(_started(rig, chance, chance.choice(free), number, tally))
            number += 1
        for one in list(running):
            if one.client.process.poll() is not None:
                running.remove(one)
                _judge(rig, one, tally)
            elif time.monotonic() > one.ends_at:
                running.remove(one)
                _interrupt(rig, chance, one, tally)
        _watch_deaths(rig, tally)
        tally.registered |= valid_paths(rig)
        tally.lost |= lost_paths(rig)
        time.sleep(0.05)


def _started(rig: Rig, chance: random.Random, name: str, number: int, tally: Tally) -> Running:
    """Start a build that takes a while, or goes on where an interrupted one has left debris."""
    generation = tally.generations.setdefault(name, 0)
    log = f"soak-{number}"
    note = f'stat -c "%u by $(id -u)" "$out" >{notes_of(rig, name, generation)}$$ 2>/dev/null\n'
    works = 'echo "$name works on $(stat -c %i "$out")." >&2\n'
    script = (
        f"{note}{jobs.WITNESS}{works}sleep 0.{3 + generation % 6}\n"
        f"{jobs.FINISH}echo {generation} >> $out/result\n"
    )
    client = jobs.start(rig, [name], script, log)
    now = time.monotonic()
    return Running(name, generation, log, client, now, now + chance.uniform(0.1, 1.5))


def notes_of(rig: Rig, name: str, generation: int) -> str:
    """Where each builder of it notes whose debris it found, by its pid. Not all are heard of by
    their clients: one that is interrupted may hear nothing of a builder whose work is registered.
    """
    return f"{rig.base}/scratch/found-{name}-{generation}-"


def _is_stale(rig: Rig, name: str, generation: int) -> bool:
    """Whether a builder of it found debris of its own user: Nix registers that with its work."""
    notes = [ns.read(note).split() for note in glob.glob(f"{notes_of(rig, name, generation)}*")]
    return any(note and note[0] == note[-1] for note in notes)


def _interrupt(rig: Rig, chance: random.Random, one: Running, tally: Tally) -> None:
    """The client by either signal, or the worker, whose builder may then live on."""
    targets = [one.client.pid]
    builder = jobs.witness(jobs.log_of(rig, one.log), one.name)
    by_pid = {process.pid: process for process in ns.processes(rig.namespace)}
    if builder is not None and builder.pid in by_pid:
        targets.append(by_pid[builder.pid].parent)
    target = chance.choice(targets)
    ns.kill(rig.namespace, SIGKILL if target != one.client.pid else SIGINT, target)
    try:
        one.client.process.wait(120)  # what else is at work may leave it little time
    except TimeoutExpired:
        looked = ns.run(rig.namespace, ["sh", "-c", _LOOK, "sh", f"{one.client.pid}"])
        tally.hung.append(f"{jobs.log_of(rig, one.log)}\n{looked.stdout}{looked.stderr}")
        # Who was interrupted waits for nobody but itself (NixOS/nix#5438); else it waits for us.
        assert target == one.client.pid, tally.hung[-1]
        ns.kill(rig.namespace, SIGKILL, one.client.pid)
        one.client.process.wait(30)
    if one.client.process.returncode == 0:
        _judge(rig, one, tally)
        return
    # What it has begun may still be registered: by its worker, or by the next build.
    tally.interrupted += 1
    works = re.search(_WORKS.format(name=one.name), jobs.log_of(rig, one.log), re.MULTILINE)
    if builder is not None and works is not None:
        place = (builder.out, int(works[1]))
        # One that went on where another had left off: only the last of them left it.
        tally.deaths = [d for d in tally.deaths if d.gone or (d.path, d.inode) != place]
        tally.deaths.append(Death(builder.out, int(works[1]), builder.pid))


def _judge(rig: Rig, one: Running, tally: Tally) -> None:
    """A build that came to its end by itself: well, or badly for a reason that is found."""
    said = jobs.log_of(rig, one.log)
    builder = jobs.witness(said, one.name)
    failure = Failure(one.began, time.monotonic(), said)
    if one.client.process.returncode == 0:
        tally.good += 1
        tally.generations[one.name] += 1
        if not _is_whole(rig, one, said.splitlines()[-1]):
            tally.failures.append(failure)
    elif builder is None:
        tally.refused += 1
        told = any(word in said for word in ("cannot connect to", "disconnected", "reset by peer"))
        assert told, f"{one.name} failed before it began:\n{said}"
    elif _found_debris(said, builder):
        tally.wedged += 1
    else:
        tally.failures.append(failure)


def _found_debris(said: str, builder: jobs.Witness) -> bool:
    """Whether it could not go on for what lay there before it began."""
    return _cannot_copy(said, builder) or (
        builder.saw != "nothing" and f"{builder.out}/" in said and "Permission denied" in said
    )


def _cannot_copy(said: str, builder: jobs.Witness) -> bool:
    """What a worker that was killed while it registered this has left."""
    return f"{builder.out}.tmp' already exists" in said or f"{builder.out}.tmp': File" in said


def _is_whole(rig: Rig, one: Running, path: str) -> bool:
    """Whether what was built holds what it should, and stale files only where they were met."""
    try:
        files = os.listdir(rig.outside(path))
    except FileNotFoundError:
        return True  # the collector has it already, as nobody keeps it
    return "result" in files and (len(files) == 1 or _is_stale(rig, one.name, one.generation))


def lost_paths(rig: Rig) -> set[str]:
    """What is registered and not there. The collector first forgets a path, then deletes it."""
    missing = {p for p in valid_paths(rig) if not os.path.lexists(rig.outside(p))}
    return missing & valid_paths(rig) if missing else missing


def _watch_deaths(rig: Rig, tally: Tally) -> None:
    """Note which builders have ended, and what of their debris has gone since."""
    waiting = [death for death in tally.deaths if death.gone is None]
    if any(death.at is None for death in waiting):
        alive = {process.pid for process in ns.processes(rig.namespace)}
        for death in waiting:
            if death.at is None and death.builder not in alive:
                death.at = time.monotonic()
    for death in waiting:
        if death.at is not None and _inode(rig, death.path) != death.inode:
            death.gone = time.monotonic()


def _inode(rig: Rig, path: str) -> int | None:
    try:
        return os.lstat(rig.outside(path)).st_ino
    except FileNotFoundError:
        return None


def debris(rig: Rig, tally: Tally) -> set[str]:
    """What is not registered, but for what Nix itself had moved, with its lock: that is root's by
    then, and the next build of it replaces it. What lies where a builder has written is debris,
    whosever it is.
    """
    of_nix = moved_by_nix(rig, tally)
    return unregistered(rig) - of_nix - {f"{path}.lock" for path in of_nix}


def moved_by_nix(rig: Rig, tally: Tally) -> set[str]:
    """What Nix had moved to its content address before it was killed, and has not registered."""
    left, valid = unregistered(rig), map(os.path.basename, valid_paths(rig))
    drvs = [StorePath(name) for name in valid if name.endswith(".drv")]
    store_dir = StoreDir("/nix/store")
    built = {store_dir.join(scratch_path(drv, "out", store_dir).base_name) for drv in drvs}
    built |= {death.path for death in tally.deaths}
    return {path for path in left - built if _is_canonical(rig, path)}


def _is_canonical(rig: Rig, path: str) -> bool:
    try:
        found = os.lstat(rig.outside(path))
    except FileNotFoundError:
        return False
    return (found.st_uid, found.st_mtime) == (0, 1) and not found.st_mode & 0o222


def removed_inodes(log: str) -> set[tuple[str, int]]:
    """Base name and inode of all that was removed, by that audit log."""
    intents: dict[object, tuple[str, int]] = {}
    found = set()
    for one in audit_reading.read_records(log):
        if one["action"] == "intent":
            intents[one["seq"]] = (str(one["name"]), int(str(one["inode"])))
        elif one["action"] == "result" and one["status"] == "removed" and one["op"] in intents:
            found.add(intents[one["op"]])
    return found


def waits_for(deaths: list[Death], removed: set[tuple[str, int]]) -> list[float]:
    """Seconds from the end of a builder until its debris was gone, of all that we removed."""
    return [
        death.gone - death.at
        for death in deaths
        if death.at is not None and death.gone is not None
        if (os.path.basename(death.path), death.inode) in removed
    ]


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """While a thread of its own does that work, which must end soon after the event."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def troubled(
    rig: Rig, chance: random.Random, tally: Tally, every: float
) -> AbstractContextManager[None]:
    """While something else is done to the store, the daemon or the service every so often.

    By chance, but each of these once before another is done again.
    """

    def run(*command: str, user: str = "root", fine: Container[int] = (0,)) -> str:
        done = ns.run(rig.namespace, command, user=user, seconds=300)
        tally.failed += [f"{command}: {done.stderr}"] * (done.returncode not in fine)
        return done.stderr

    def collect(*command: str, user: str = "root", fine: Container[int] = range(256)) -> None:
        began = time.monotonic()
        deleted = _DELETED.findall(run(*command, user=user, fine=fine))
        tally.collections.append(Collection(began, time.monotonic(), tuple(deleted)))

    copied = f"{rig.base}/scratch/copied"
    acts: dict[str, Callable[[], object]] = {
        "collections by a user": lambda: collect("nix", "store", "gc", user=rig.user),
        "collections by root": lambda: collect("nix-store", "--gc"),
        "restarts of the daemon": lambda: run("systemctl", "restart", "nix-daemon.service"),
        "restarts of the service": lambda: run("systemctl", "restart", service.WATCHER),
        "copies": lambda: collect("sh", "-ec", _COPY, "sh", copied, fine=(0,)),
        "optimised": lambda: run("nix-store", "--optimise"),
        "verified": lambda: run("nix-store", "--verify", "--check-contents"),
        "sweeps by hand": lambda: run("storewarden", "scan", "--yes", "--quiet", fine=SWEPT),
    }

    def trouble(stop: threading.Event) -> None:
        while True:
            for name in chance.sample([*acts], len(acts)):
                if stop.wait(every):
                    return
                acts[name]()
                tally.acts[name] += 1

    return meanwhile(trouble)
