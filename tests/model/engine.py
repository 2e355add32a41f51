# SPDX-License-Identifier: MIT
"""What a helper does, step by step, as engine.py, hold.py and resume.py say; see protocol.py."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from model.protocol import (
    COVER,
    FREE,
    LOST_VALID,
    MOVED_LIVE,
    NOBODY,
    OWN,
    REMOVED_LIVE,
    ROOT,
    Guard,
    Helper,
    Lock,
    Private,
    Step,
    World,
    awaited,
    holder_of,
    live,
    named,
    new_lock,
    put,
)


class To(Protocol):
    """Makes the step that leads a helper on."""

    def __call__(
        self, what: str, at: str, after: World = ..., broken: str = ..., **new: Any
    ) -> Step:
        """What happens, where the helper is then, in which world, what it breaks, what it has."""


class Engine(NamedTuple):
    """The helper that asks for all of `guards`."""

    guards: Guard
    order: tuple[int, ...] = (COVER, OWN)
    """In which the locks are taken: by their names, so a hash decides."""
    roots_first: bool = True
    """Whether it asks for temp roots before it asks for orphans. A worker that is killed between
    the two has a temp root no more, and its builder is an orphan only then."""

    def steps(self, world: World) -> Iterator[Step]:
        """All that helpers may do next; being killed is among it."""
        for number, helper in enumerate(world.helpers):
            if helper.at == "idle":
                # One session at a time: the flock of the audit log.
                if all(other.at == "idle" for other in world.helpers):
                    begun = put(world.helpers, number, Helper("session"))
                    yield Step(f"helper {number}", "begins", world._replace(helpers=begun))
                continue
            yield self.next(world, number)
            if world.kills:
                left = tuple(
                    p._replace(keeper=NOBODY) if p.keeper == number else p for p in world.private
                )
                killed = world._replace(
                    helpers=put(world.helpers, number, Helper()),
                    private=left,
                    kills=world.kills - 1,
                )
                yield Step(f"helper {number}", "is killed", killed)

    def next(self, world: World, number: int) -> Step:
        """What that one does next, if it lives on."""
        helper = world.helpers[number]

        def to(what: str, at: str, after: World = world, broken: str = "", **new: Any) -> Step:
            changed = helper._replace(at=at, **new)
            helpers = put(after.helpers, number, changed)
            return Step(f"helper {number}", what, after._replace(helpers=helpers), broken)

        def leave(what: str) -> Step:
            return to(what, "releasing", entry=None)

        entry, asks = helper.entry, self.guards
        match helper.at.split():
            case ["session"] if world.entry is None:
                return to("finds nothing there", "sorting")
            case ["session"]:
                return to("looks at the entry", "looked", entry=world.entry)
            case ["looked"]:
                if Guard.USER in asks and entry is not None and entry.owner == ROOT:
                    return to("may be a copy: only reports it", "sorting", entry=None)
                if Guard.COLLECTOR in asks and world.collecting is not None:
                    return leave("is refused gc.lock")
                shared, first = Guard.COLLECTOR in asks, f"open {self.order[0]}"
                after = "user" if Guard.USER in asks else first
                return to("holds gc.lock shared", after, shared=shared)
            case ["user"]:
                first = f"open {self.order[0]}"
                if entry is None:
                    return leave("has no owner to ask for")
                if entry.owner in {one.user for one in world.builders}:
                    return leave("finds its build user in use")
                return to("holds its build user", first, user=entry.owner)
            case [what, which]:
                return self.lock(world, helper, what, int(which), to)
            case ["roots"]:
                others = [b for n, b in enumerate(world.builders) if n != helper.lender]
                if Guard.TEMP_ROOT in asks and any(b.at != "idle" for b in others):
                    return leave("sees a temp root")
                return to("sees no temp root", "orphans" if self.roots_first else "database")
            case ["orphans"]:
                asked = bool((Guard.ORPHAN | Guard.USER) & asks)
                if asked and entry and any(user == entry.owner for user, _ in world.orphans):
                    return leave("sees a process of the owner")
                return to(
                    "sees no process of the owner", "database" if self.roots_first else "roots"
                )
            case ["database"]:
                if Guard.DATABASE in asks and world.valid:
                    return leave("sees that it is valid")
                return to("sees that it is not valid", "changed")
            case ["changed"]:
                if Guard.CHANGED in asks and world.entry != entry:
                    return leave("sees that it changed")
                return to("has it proved", "proved")
            case ["proved"]:
                return to("has its intent on record", "intended")
            case ["intended"]:
                changed = world.entry is not None and world.entry != entry
                if Guard.LAST_LOOK in asks and changed:
                    return leave("sees that it changed at the last moment")
                return to("looks once more", "unchanged")
            case ["unchanged"] if not self.still_held(world, helper):
                return leave("sees that a lock of it is gone")
            case ["unchanged"]:
                return to("sees that all is held", "moving")
            case ["moving"]:
                thing = world.entry
                if thing is None or entry is None:
                    return leave("finds it gone")
                kept = Private(thing, entry.number, number)
                moved = world._replace(entry=None, private=(*world.private, kept))
                broken = LOST_VALID * (thing.number == world.valid)
                if thing.number in live(world):
                    # What goes between the last look and this is put back at once; or else it is
                    # removed, and that is no less a breach.
                    broken = MOVED_LIVE * all_held(world, helper, lent=self.lent(world, helper))
                return to("renames it", "taken", moved, broken)
            case ["taken"]:
                mine = self.mine(world, number)
                same = mine is not None and mine.thing.number == mine.proved
                if Guard.COMPARED in asks and not same:
                    return to("sees that it moved another", "returning")
                if not self.still_held(world, helper):
                    return to("sees that a lock of it has gone", "returning")
                if Guard.DATABASE_AGAIN in asks and world.valid:
                    return to("sees that it is valid now", "returning")
                return to("has it taken", "releasing", entry=None)
            case ["returning"]:
                return to("puts it back", "releasing", self.returned(world, number), entry=None)
            case ["releasing"]:
                return self.release(world, helper, to)
            case ["sorting"]:
                return self.sort(world, number, to)
            case ["putting"]:
                mine = self.mine(world, number)
                if world.entry is not None and mine is not None and mine.thing.owner != ROOT:
                    dead = put_private(world, mine, mine._replace(back=False))
                    return to("sees a later one in its place", "releasing", dead)
                return to("puts it back", "releasing", self.returned(world, number), entry=None)
            case ["purging"]:
                stays = [p for p in world.private if p.keeper != number or p.back]
                goes = [p for p in world.private if p not in stays]
                gone = {p.thing.number for p in goes}
                hurt = any(p.thing.number in awaited(world) and not p.displaced for p in goes)
                broken = REMOVED_LIVE * hurt
                broken = LOST_VALID * (world.valid in gone) or broken
                rest = (
                    p if p.keeper != number else p._replace(keeper=NOBODY, back=False)
                    for p in stays
                )
                helpers = put(world.helpers, number, Helper())
                ended = world._replace(private=tuple(rest), helpers=helpers)
                return Step(f"helper {number}", "purges and ends", ended, broken)
        raise AssertionError(helper.at)

    def lock(self, world: World, helper: Helper, what: str, which: int, to: To) -> Step:
        """A step on the way to that lock: `hold_path` and `hold_lock_file`."""
        last = self.order.index(which) == len(self.order) - 1
        proof = "roots" if self.roots_first else "orphans"
        after = proof if last else f"open {self.order[-1]}"
        if last and helper.again:
            after = "putting"
        name, inode = ("the lock of the build", "the lock of the path")[which], world.names[which]
        mine = helper.locks[which]

        def having(lock: Lock, *, made: bool) -> dict[str, Any]:
            return {
                "locks": put(helper.locks, which, lock),
                "made": put(helper.made, which, made),
            }

        match what:
            case "open" if (Guard.COVER, Guard.OWN)[which] not in self.guards:
                return to(f"does not take {name}", after)
            case "open" if which == COVER and self.lent(world, helper):
                return to(f"is lent {name}", after)
            case "open" if inode == 0:
                created = named(world, which, new_lock(world))
                return to(f"makes {name}", f"open {which}", created, **having(mine, made=True))
            case "open":
                made = helper.made[which]
                return to(f"opens {name}", f"take {which}", **having(Lock(inode), made=made))
            case "take" if holder_of(world, mine.inode):
                return to(f"is refused {name}", "releasing")
            case "take":
                held = Lock(mine.inode, held=True)
                return to(
                    f"takes {name}", f"check {which}", **having(held, made=helper.made[which])
                )
            case _ if inode != mine.inode:
                return to(
                    f"sees that {name} is another", f"open {which}", **having(FREE, made=False)
                )
            case _ if inode in world.marked:
                return to(f"sees that {name} is not empty", "releasing")
            case _:
                return to(f"holds {name}", after)

    def release(self, world: World, helper: Helper, to: To) -> Step:
        """Let go of all, last things first; what was made here is unlinked, then marked."""
        for which in reversed(self.order):
            lock, made = helper.locks[which], helper.made[which]
            if not lock.inode:
                continue
            nothing = Helper()
            free: dict[str, Any] = {
                "locks": put(helper.locks, which, FREE),
                "made": put(helper.made, which, nothing.made[which]),
            }
            if not made or not lock.held:
                return to("lets a lock go", "releasing", **free)
            if world.names[which] == lock.inode:
                return to("unlinks its lock file", "releasing", named(world, which, 0))
            marked = world._replace(marked=world.marked | {lock.inode})
            return to("marks it and lets it go", "releasing", marked, **free)
        over = helper.again or helper.lender != NOBODY
        at = "purging" if over else "sorting"
        return to("lets gc.lock go", at, shared=False, user=NOBODY, entry=None)

    def sort(self, world: World, number: int, to: To) -> Step:
        """What becomes of what an earlier run left: `fate`."""
        left = next((p for p in world.private if p.keeper == NOBODY), None)
        if left is None:
            return to("finds nothing left", "purging", entry=None)
        valid, proved = world.valid != 0, left.thing.number == left.proved
        if (
            not valid
            and proved
            and Guard.TEMP_ROOT in self.guards
            and any(b.at != "idle" for b in world.builders)
        ):
            waiting = put_private(world, left, left._replace(keeper=number, back=True))
            return to("sees a temp root on what is left", "purging", waiting)
        if proved and (not valid or world.entry is not None):
            mine = left._replace(keeper=number)
            return to("finds what is dead", "sorting", put_private(world, left, mine))
        mine = left._replace(keeper=number, back=True)
        found = put_private(world, left, mine)
        if world.collecting is not None:
            return to("has to wait for the collector", "purging", found)
        first = f"open {self.order[0]}"
        return to("finds what is wanted", first, found, again=True, shared=True, entry=None)

    def mine(self, world: World, number: int) -> Private | None:
        """What it has moved, or is to put back."""
        mine = [p for p in world.private if p.keeper == number]
        return next((p for p in mine if p.back), mine[-1] if mine else None)

    def returned(self, world: World, number: int) -> World:
        """With what it has put back, if the place is free."""
        mine = self.mine(world, number)
        if mine is None:
            return world
        if world.entry is not None:
            return put_private(world, mine, mine._replace(back=True, displaced=True))
        rest = tuple(p for p in world.private if p != mine)
        return world._replace(entry=mine.thing, private=rest)

    def lent(self, world: World, helper: Helper) -> bool:
        """Whether a builder waits for it that holds the lock of the build."""
        if helper.lender == NOBODY:
            return False
        lender = world.builders[helper.lender]
        return lender.at == "hooked" and lender.lock.held

    def still_held(self, world: World, helper: Helper) -> bool:
        """Whether it finds its locks in their places, and the builder that lends it one waiting."""
        lent = self.lent(world, helper)
        return Guard.STILL_HELD not in self.guards or all_held(world, helper, lent=lent)


def all_held(world: World, helper: Helper, *, lent: bool) -> bool:
    """Whether its locks are in their places, and what is lent to it is held."""
    mine = zip(world.names, helper.locks, strict=True)
    named_so = all(inode == lock.inode for inode, lock in mine if lock.held)
    return named_so and (helper.lender == NOBODY or helper.locks[COVER].held or lent)


def put_private(world: World, old: Private, new: Private) -> World:
    """With another in that one's place."""
    return world._replace(private=tuple(new if p == old else p for p in world.private))
