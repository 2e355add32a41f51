# SPDX-License-Identifier: MIT
"""`python -m model.search`: every world that can be reached is looked at, breadth first.

So what is found first is the shortest way to it. Nobody has a clock: whoever can do a step may do
it now or never, as often as it comes to that again.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

from model.engine import Engine
from model.protocol import (
    AT_135742A,
    COLLECTED_LIVE,
    COVER,
    EVERYTHING,
    LOST_VALID,
    MOVED_LIVE,
    NOBODY,
    OWN,
    POISONED,
    REMOVED_LIVE,
    ROOT,
    UNPROVED,
    Builder,
    Form,
    Guard,
    Helper,
    Nix,
    Step,
    Thing,
    World,
    tidy,
)

WEDGED = "what nobody wants is still there after two scans, and one for each leftover"
OURS = frozenset({MOVED_LIVE, REMOVED_LIVE, LOST_VALID, POISONED, WEDGED})
"""The laws. That Nix's collector deletes what is alive is Nix's, and a control."""
SCANS = 2


@dataclass(frozen=True)
class Case:
    """A protocol that is searched, for what breaks these laws."""

    nix: Nix
    engine: Engine
    laws: frozenset[str] = OURS
    builders: int = 1
    helpers: int = 1
    kills: int = 1

    @property
    def first(self) -> World:
        """Nothing is there, and nobody is at work."""
        return World(
            None,
            builders=(Builder(),) * self.builders,
            helpers=(Helper(),) * self.helpers,
            kills=self.kills,
        )

    def steps(self, world: World) -> Iterator[Step]:
        """Whatever may come next."""
        for steps in (self.nix.steps(world), self.engine.steps(world)):
            for step in steps:
                yield step._replace(world=tidy(step.world))


@dataclass
class Found:
    """What a search came to."""

    states: int = 0
    depth: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)
    """By law, the shortest way to break it."""
    whole: bool = False
    """Whether there was nothing else to look at."""


def search(case: Case, most: int = sys.maxsize) -> Found:
    """Look at every world that can be reached, until a law is broken, or at so many."""
    found = Found()
    before: dict[bytes, tuple[bytes, str]] = {(key := seal(case, case.first)): (b"", "")}
    layer = [(key, case.first)]

    def way(key: bytes, *last: str) -> list[str]:
        told = list(last)
        while key:
            key, what = before[key]
            told.append(what)
        return told[-2::-1] if not last else [*told[-2:0:-1], *last]

    while layer and not found.broken and len(before) < most:
        following = []
        for key, world in layer:
            for law in case.laws & {*broken_in(case, world)}:
                found.broken.setdefault(law, way(key))
            for step in case.steps(world):
                what = f"{step.who} {step.what}"
                if step.broken in case.laws:
                    found.broken.setdefault(step.broken, way(key, what))
                after = seal(case, step.world)
                if after not in before:
                    before[after] = key, what
                    following.append((after, step.world))
        layer = following
        found.depth += bool(layer)
    found.states, found.whole = len(before), not layer
    return found


def seal(case: Case, world: World) -> bytes:
    """The same for worlds that differ only in what things are called: inodes, users, builders."""
    inodes: dict[int, int] = {0: 0}
    things: dict[int, int] = {0: 0}
    users = {NOBODY: 0, ROOT: 1}
    out: list[int] = []

    def number(of: dict[int, int], it: int) -> int:
        return of.setdefault(it, len(of))

    looked = next((h.entry for h in world.helpers if h.entry), None)  # one session at a time

    def tell(thing: Thing | None) -> None:
        if thing is None:
            out.append(0)
            return
        out.extend((number(things, thing.number) + 1, number(users, thing.owner)))
        if looked is not None and looked.number == thing.number:
            out.append(looked.version == thing.version)  # nothing else asks for it

    builders = world.builders
    if not case.nix.copies and not case.nix.hook:
        builders = tuple(sorted(builders, key=lambda b: (b.at, b.lock.held)))
    out += [number(inodes, name) for name in world.names]
    tell(world.entry)
    out.append(number(things, world.valid))
    for b in builders:
        out += (PLACES.setdefault(b.at, len(PLACES)), number(users, b.user))
        out += (number(inodes, b.lock.inode), b.lock.held)
        out += (number(inodes, b.final.inode), b.final.held, number(things, b.thing))
    for h in world.helpers:
        out += (PLACES.setdefault(h.at, len(PLACES)), h.shared, h.again, h.lender + 1)
        tell(h.entry)
        out.append(number(users, h.user))
        for lock, made in zip(h.locks, h.made, strict=True):
            out += (number(inodes, lock.inode), lock.held, made)
    out.append(len(world.private))
    for p in world.private:
        tell(p.thing)
        out += (number(things, p.proved), p.keeper + 1, p.back, p.displaced)
    out.append(9 if world.collecting is None else len(world.collecting))
    if world.collecting and not case.nix.rechecks:
        out += [case.nix.listed.index(name) for name in world.collecting]
    out += sorted(
        number(users, user) * 16 + number(things, thing) for user, thing in sorted(world.orphans)
    )
    out.append(99)
    out += sorted(number(inodes, inode) for inode in world.marked)
    out.append(world.kills)
    return bytes(out)


PLACES: dict[str, int] = {}
"""Numbers for where builders and helpers are."""


def broken_in(case: Case, world: World) -> Iterator[str]:
    """The laws that this very world breaks."""
    if world.marked & {*world.names}:
        yield POISONED
    quiet = all(b.at == "idle" for b in world.builders) and all(
        h.at == "idle" for h in world.helpers
    )
    if quiet and not world.orphans and world.collecting is None and not healed(case, world):
        yield WEDGED


def healed(case: Case, world: World) -> bool:
    """Whether nothing is left but what is valid, once the engine has run alone some times."""
    for _ in range(SCANS + len(world.private)):
        world = scanned(case, world)
    there = world.entry is not None and not world.valid
    # What is root's at a path that is known is only reported: Nix clears it away itself.
    reported = (
        Guard.USER in case.engine.guards and there and world.entry and world.entry.owner == ROOT
    )
    return not world.private and (not there or bool(reported))


def scanned(case: Case, world: World) -> World:
    """After one run of the engine, nobody else being at work."""
    world = world._replace(helpers=(Helper("session"), *world.helpers[1:]))
    while world.helpers[0].at != "idle":
        world = tidy(case.engine.next(world, 0).world)
    return world


_PATH_FIRST = (OWN, COVER)
CASES: Mapping[str, Case] = {
    "a scratch path": Case(Nix(Form.SCRATCH), Engine(EVERYTHING)),
    "a redirect": Case(Nix(Form.REDIRECT), Engine(EVERYTHING, _PATH_FIRST)),
    "a known path, built": Case(Nix(Form.KNOWN), Engine(UNPROVED)),
    "a known path, built and copied": Case(
        Nix(Form.KNOWN, copies=True, listed=()), Engine(UNPROVED), builders=2, kills=0
    ),
    "a scratch path, two helpers": Case(
        Nix(Form.SCRATCH, listed=()), Engine(EVERYTHING), helpers=2, kills=0
    ),
    "a scratch path, two builds": Case(Nix(Form.SCRATCH), Engine(EVERYTHING), builders=2, kills=0),
    "a redirect, two builds": Case(
        Nix(Form.REDIRECT), Engine(EVERYTHING, _PATH_FIRST), builders=2, kills=0
    ),
}
"""What has to hold, whoever does what in which order."""
CONTROLS: Mapping[str, Case] = {
    "Nix's own collector": Case(
        Nix(Form.SCRATCH), Engine(EVERYTHING), laws=frozenset({COLLECTED_LIVE})
    ),
    "a redirect, by the engine of 135742a": Case(
        Nix(Form.REDIRECT, listed=()), Engine(AT_135742A), builders=2, kills=0
    ),
    "orphans asked for before temp roots": Case(
        Nix(Form.REDIRECT), Engine(EVERYTHING & ~Guard.STILL_HELD, _PATH_FIRST, roots_first=False)
    ),
    "locks that have lost their names": Case(
        Nix(Form.SCRATCH), Engine(EVERYTHING & ~Guard.STILL_HELD)
    ),
}
"""What is known to be wrong, and so has to be found."""


def timed(case: Case, most: int) -> tuple[Found, float]:
    """What a search came to, and the seconds that it took."""
    begin = time.monotonic()
    return search(case, most), time.monotonic() - begin


def main(argv: Sequence[str] | None = None) -> int:
    """Search what is named, or all; 1 if a law is broken, a control not found, or some is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=sys.maxsize, help="worlds of each case")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("names", nargs="*", help="of cases; all")
    options = parser.parse_args(argv)
    cases = {**CONTROLS, **CASES}
    names = options.names or [*cases]
    wrong = False
    with ProcessPoolExecutor(options.processes) as pool:
        searched = pool.map(timed, [cases[name] for name in names], repeat(options.most))
        for name, (found, seconds) in zip(names, searched, strict=True):
            end = "broken" if found.broken else "all of them" if found.whole else "and more"
            told = f"{found.states} worlds, {found.depth} steps deep, {seconds:.0f} s: {end}"
            print(f"{name}: {told}", flush=True)
            for law, way in found.broken.items():
                print(f"  {law}:", *way, sep="\n    ", flush=True)
            wrong |= bool(found.broken) != (name in CONTROLS)
            wrong |= not (found.whole or found.broken)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
