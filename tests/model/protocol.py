# SPDX-License-Identifier: MIT
"""Who may do what to one path of a store, step by step: small enough to be searched completely.

A step is what nobody can come between: a system call, or some of which others see only the last.
Nix's side is as in pathlocks.cc, gc.cc, user-lock.cc and the builder of 2.8 to 2.36; ours as
in helper/engine.py, hold.py and resume.py, whose checkpoints stand beside its steps.

The path is one of three. `SCRATCH`: where a floating output is built (form 1); its lock is
`<drv>.<output>.lock`. `REDIRECT`: where `--check` builds beside a path that is there (form 2); its
lock is that one's. `KNOWN`: a floating output's own path that was built before and is gone; whoever
builds it holds `<drv>.<output>.lock`, whoever copies it the lock of the path.
"""

from collections.abc import Iterator
from enum import Enum, Flag, auto
from typing import Any, NamedTuple, TypeVar, cast

Them = TypeVar("Them", bound=tuple[Any, ...])

ROOT = 0
NOBODY = -1
COVER, OWN = 0, 1
"""The two locks: the one of the derivation's output (or of what a redirect stands for), and the one
that is called after the path itself."""


class Form(Enum):
    """Which path it is."""

    SCRATCH = auto()
    REDIRECT = auto()
    KNOWN = auto()


class Guard(Flag):
    """What the engine asks before and after it moves anything; a control leaves some out."""

    COLLECTOR = auto()
    COVER = auto()
    OWN = auto()
    USER = auto()
    """The lock of its owner and no process of it: where the covering locks are not known."""
    ORPHAN = auto()
    TEMP_ROOT = auto()
    DATABASE = auto()
    CHANGED = auto()
    LAST_LOOK = auto()
    COMPARED = auto()
    DATABASE_AGAIN = auto()
    STILL_HELD = auto()


EVERYTHING = ~Guard.USER
"""For what is proved by its hash."""
UNPROVED = ~Guard.ORPHAN
"""For a known path, whose derivation any client may have named."""
BEFORE = Guard.OWN | Guard.USER | Guard.COLLECTOR | Guard.TEMP_ROOT | Guard.DATABASE | Guard.CHANGED
AT_135742A = BEFORE | Guard.COMPARED | Guard.DATABASE_AGAIN
"""What 135742a asked of a redirect, for whose derivation it did not look: no lock of its build, and
nothing between the intent and the rename. Mended by 62ee411."""


class Thing(NamedTuple):
    """An inode at the path, or that was there."""

    number: int
    owner: int
    version: int
    """For its ctime; after four changes it is as if there was none."""


class Lock(NamedTuple):
    """A lock file that somebody has open."""

    inode: int = 0
    """0: none is open."""
    held: bool = False


FREE = Lock()


class Builder(NamedTuple):
    """A worker of Nix with its builder, or one that copies a path here."""

    at: str = "idle"
    user: int = NOBODY
    lock: Lock = FREE
    final: Lock = FREE
    """That of the path to which a floating output is registered."""
    thing: int = 0
    """What its builder writes to."""


class Helper(NamedTuple):
    """A run of the engine, in the order of `Engine.steps`."""

    at: str = "idle"
    entry: Thing | None = None
    locks: tuple[Lock, Lock] = (FREE, FREE)
    made: tuple[bool, bool] = (False, False)
    """Which lock files are ones of its own."""
    shared: bool = False
    """Whether it holds `gc.lock`, which keeps the collector off."""
    user: int = NOBODY
    """The build user whose lock it holds."""
    again: bool = False
    """Whether it is putting back what an earlier run left."""
    lender: int = NOBODY
    """The builder that runs it as its hook, and waits for it."""


class Private(NamedTuple):
    """What lies in a private directory."""

    thing: Thing
    proved: int
    """The inode of which the intent speaks."""
    keeper: int
    """The helper that holds its flock."""
    back: bool = False
    """Whether it is to be put back: such a one is not purged."""
    displaced: bool = False
    """Whether its place was taken when it was to be put back: who wrote it finds another there."""


class World(NamedTuple):
    """All that matters of a store."""

    entry: Thing | None
    valid: int = 0
    """The inode that is registered under the path."""
    names: tuple[int, int] = (0, 0)
    """The inodes to which the names of the two locks lead."""
    marked: frozenset[int] = frozenset()
    """Lock files of a size other than 0."""
    builders: tuple[Builder, ...] = ()
    helpers: tuple[Helper, ...] = ()
    orphans: frozenset[tuple[int, int]] = frozenset()
    """Builders whose worker was killed: as whom they run, and what they write to."""
    collecting: tuple[str, ...] | None = None
    """What the collector has still to look at; None: it is not at work."""
    private: tuple[Private, ...] = ()
    kills: int = 0
    """How often a helper may still be killed."""


class Step(NamedTuple):
    """One that may be taken in a world."""

    who: str
    what: str
    world: World
    broken: str = ""
    """Which law it breaks."""


MOVED_LIVE = "what a live builder made was renamed, and no lock had gone since the last look"
REMOVED_LIVE = "what a worker waits for to register was removed, and had its place till then"
LOST_VALID = "a valid path was lost"
COLLECTED_LIVE = "the collector deleted what a live builder made"
POISONED = "a lock file that is linked has a size"


def awaited(world: World) -> set[int]:
    """The inodes that a worker is going to register."""
    return {b.thing for b in world.builders if b.thing}


def live(world: World) -> set[int]:
    """These, and those to which an orphan is writing, which nobody will ever register."""
    return {b.thing for b in world.builders if b.thing} | {
        thing for _, thing in world.orphans if thing
    }


def holder_of(world: World, inode: int) -> bool:
    """Whether anybody has the flock of that file."""
    held = (lock for b in world.builders for lock in (b.lock, b.final))
    ours = (lock for h in world.helpers for lock in h.locks)
    return any(lock.held and lock.inode == inode for lock in (*held, *ours))


def fresh(used: set[int]) -> int:
    """A number that nobody uses."""
    return next(n for n in range(1, len(used) + 2) if n not in used)


def new_lock(world: World) -> int:
    """The inode of a lock file that is made."""
    opened = {lock.inode for b in world.builders for lock in (b.lock, b.final)}
    opened |= {lock.inode for h in world.helpers for lock in h.locks}
    return fresh(opened | {*world.names})


def new_thing(world: World) -> int:
    """The inode of something that is made at the path."""
    used = live(world) | {world.valid} | {p.thing.number for p in world.private}
    used |= {p.proved for p in world.private} | {h.entry.number for h in world.helpers if h.entry}
    return fresh(used | ({world.entry.number} if world.entry else set()))


def named(world: World, which: int, inode: int) -> World:
    """The name of that lock leads there."""
    return world._replace(names=put(world.names, which, inode))


def tidy(world: World) -> World:
    """Without a mark on what nobody can meet any more."""
    opened = {lock.inode for b in world.builders for lock in (b.lock, b.final)}
    opened |= {lock.inode for h in world.helpers for lock in h.locks}
    return world._replace(marked=world.marked & (opened | {*world.names}))


class Nix(NamedTuple):
    """What Nix may do: its workers, their builders once they are orphans, and the collector."""

    form: Form
    copies: bool = False
    """Whether the last of the builders copies the path instead, as `nix copy` does."""
    hook: bool = False
    """Whether a build has the engine look first (pre-build-hook)."""
    users: tuple[int, ...] = (1, 2)
    rechecks: bool = True
    """Whether the collector looks at temp roots right before it deletes (2.35 on)."""
    listed: tuple[str, ...] = ("entry", "cover", "own", "private")
    """In which order the collector comes upon them."""

    def steps(self, world: World) -> Iterator[Step]:
        """All that may come next."""
        for number, builder in enumerate(world.builders):
            for what, after in self.build(world, number, builder):
                yield Step(f"builder {number}", what, after)
        for orphan in world.orphans:
            yield from self.outlive(world, orphan)
        yield from self.collect(world)

    def build(self, world: World, number: int, builder: Builder) -> Iterator[tuple[str, World]]:
        """What that worker, or its builder, does next; being killed is among it."""

        def to(at: str, world: World = world, **changes: Any) -> World:
            changed = world.builders[number]._replace(at=at, **changes)
            return world._replace(builders=put(world.builders, number, changed))

        copy = self.copies and number == len(world.builders) - 1
        mine = OWN if copy else COVER
        match builder.at:
            case "idle":
                yield "adds its temp root", to("rooted")
            case "rooted":
                inode = world.names[mine] or new_lock(world)
                yield (
                    "opens its lock file",
                    to("opened", named(world, mine, inode), lock=Lock(inode)),
                )
            case "opened" if not holder_of(world, builder.lock.inode):
                # Whoever marks it holds it, so nobody does between this and the look at its size.
                if builder.lock.inode in world.marked:
                    yield (
                        "takes a lock that was unlinked, and starts afresh",
                        to("rooted", lock=FREE),
                    )
                else:
                    held = Lock(builder.lock.inode, held=True)
                    yield "takes its lock", to("locked", lock=held)
            case "locked" if self.form is Form.KNOWN and world.valid:
                yield "finds the path valid", to("done")
            case "locked" if copy:
                yield "deletes what is not valid", to("cleaned", world._replace(entry=None))
            case "locked":
                for user in self.users:
                    if user not in {b.user for b in world.builders} | {
                        h.user for h in world.helpers
                    }:
                        gone = frozenset(o for o in world.orphans if o[0] != user)
                        ended = world._replace(orphans=gone)
                        yield (
                            f"takes user {user} and ends its processes",
                            to("user", ended, user=user),
                        )
            case "user" if self.hook and not any(h.lender == number for h in world.helpers):
                hook = Helper("session", lender=number)
                free = [n for n, h in enumerate(world.helpers) if h.at == "idle"]
                if free and all(h.at == "idle" for h in world.helpers):
                    helpers = put(world.helpers, free[0], hook)
                    yield "runs the hook", to("hooked", world._replace(helpers=helpers))
                yield "runs a hook that finds another at work", to("ready")
            case "hooked" if not any(h.lender == number for h in world.helpers):
                yield "sees its hook end", to("ready")
            case "user" | "ready":
                clean = world if self.form is Form.SCRATCH else world._replace(entry=None)
                yield "starts its builder", to("cleaned", clean)
            case "cleaned" if world.entry is None:
                thing = Thing(new_thing(world), ROOT if copy else builder.user, 0)
                made = world._replace(entry=thing)
                yield "makes the output", to("making", made, thing=thing.number)
            case "cleaned" if world.entry and world.entry.owner == builder.user:
                yield "goes on with what it finds there", to("making", thing=world.entry.number)
            case "cleaned":
                failed = to("idle", lock=FREE, user=NOBODY)
                yield "may not write there, fails, and leaves its lock", failed
            case "making":
                yield "writes", to("made", changed(world, builder.thing))
            case "made":
                owned = changed(world, builder.thing, owner=ROOT)
                yield "makes it root's", to("owned", owned)
            case "owned" if self.form is Form.KNOWN and not copy:
                inode = world.names[OWN] or new_lock(world)
                opened = named(world, OWN, inode)
                yield "opens the lock of the path", to("final", opened, final=Lock(inode))
            case "owned" if copy:
                yield "registers it", to("done", world._replace(valid=builder.thing), thing=0)
            case "owned":
                yield "moves it to its place", to("done", world._replace(entry=None), thing=0)
            case "final" if not holder_of(world, builder.final.inode):
                if builder.final.inode in world.marked:
                    yield "finds that one unlinked", to("owned", final=FREE)
                else:
                    yield "takes it", to("held", final=Lock(builder.final.inode, held=True))
            case "held":
                there = world.entry is not None and world.entry.number == builder.thing
                valid = world._replace(valid=builder.thing) if there and not world.valid else world
                yield "registers it", to("registered", valid, thing=0)
            case "registered":
                yield "unlinks the lock of the path", to("unlinked", named(world, OWN, 0))
            case "unlinked":
                marked = world.marked | {builder.final.inode}
                yield "marks and lets it go", to("done", world._replace(marked=marked), final=FREE)
            case "done":
                yield "unlinks its lock", to("marking", named(world, mine, 0))
            case "marking":
                marked = world.marked | {builder.lock.inode}
                ended = world._replace(marked=marked)
                yield "marks its lock and ends", to("idle", ended, lock=FREE, user=NOBODY)
        if builder.at != "idle":
            dead = world._replace(builders=put(world.builders, number, Builder()))
            yield "is killed, and all that it started", dead
            if builder.at in {"cleaned", "making"} and not copy:
                left = world.orphans | {(builder.user, builder.thing)}
                yield "is killed, and its builder lives on", dead._replace(orphans=left)

    def outlive(self, world: World, orphan: tuple[int, int]) -> Iterator[Step]:
        """What a builder does whose worker was killed."""
        user, thing = orphan
        others = world.orphans - {orphan}
        yield Step(f"orphan of {user}", "ends", world._replace(orphans=others))
        if thing:
            return
        if world.entry is None:
            made = Thing(new_thing(world), user, 0)
            after = world._replace(entry=made, orphans=others | {(user, made.number)})
            yield Step(f"orphan of {user}", "makes the output", after)
        elif world.entry.owner == user:
            after = world._replace(orphans=others | {(user, world.entry.number)})
            yield Step(f"orphan of {user}", "writes into what is there", after)

    def collect(self, world: World) -> Iterator[Step]:
        """What `nix store gc` does: it holds `gc.lock` alone for its whole run."""
        rooted = any(b.at != "idle" for b in world.builders)
        # Builders' roots are on the derivation, and on the path that a redirect stands for or that
        # is known; so what is called after these stays.
        kept = {"cover"} if rooted else set()
        if self.form is Form.KNOWN and rooted:
            kept |= {"entry", "own"}
        if world.collecting is None:
            if not any(h.shared for h in world.helpers):
                seen = tuple(n for n in self.listed if self.rechecks or n not in kept)
                yield Step("collector", "begins", world._replace(collecting=seen))
        elif not world.collecting:
            yield Step("collector", "ends", world._replace(collecting=None))
        else:
            name = world.collecting[0]
            rest = world._replace(collecting=world.collecting[1:])
            match name:
                case _ if self.rechecks and name in kept:
                    yield Step("collector", f"leaves {name}", rest)
                case "cover" | "own":
                    which = COVER if name == "cover" else OWN
                    yield Step("collector", f"unlinks the lock {name}", named(rest, which, 0))
                case "private":
                    left = tuple(p for p in world.private if p.keeper != NOBODY)
                    lost = any(
                        p.thing.number == world.valid for p in world.private if p not in left
                    )
                    after = rest._replace(private=left)
                    yield Step(
                        "collector", "collects private directories", after, LOST_VALID * lost
                    )
                case _ if world.entry is None:
                    yield Step("collector", "finds nothing", rest)
                case _ if world.entry.number == world.valid:
                    yield Step("collector", "makes the path invalid", world._replace(valid=0))
                case _:
                    hurt = world.entry.number in live(world)
                    after = rest._replace(entry=None)
                    yield Step("collector", "deletes the path", after, COLLECTED_LIVE * hurt)


def changed(world: World, thing: int, owner: int | None = None) -> World:
    """That inode was written to, or given away, wherever it lies now."""

    def one(it: Thing) -> Thing:
        if it.number != thing:
            return it
        return Thing(it.number, it.owner if owner is None else owner, (it.version + 1) % 4)

    private = tuple(p._replace(thing=one(p.thing)) for p in world.private)
    return world._replace(entry=world.entry and one(world.entry), private=private)


def put(them: Them, number: int, it: object) -> Them:
    """Them, with another in that place."""
    changed = (*them[:number], it, *them[number + 1 :])
    return cast("Them", changed)
