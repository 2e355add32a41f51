# SPDX-License-Identifier: MIT
"""When to look at what next. It looks at nothing itself: findings and the time are given to it.

What is alive is looked at as soon as a lock is let go or a process ends that keeps it, and every
second besides, which is cheap: not every system tells of either. What was refused or failed is
tried again ever more rarely.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from storewarden.claims import Claim, Verdict
from storewarden.config import Config
from storewarden.protocol import RemoveRequest
from storewarden.scan import Finding
from storewarden.store.entries import EntryKind
from storewarden.store.paths import LOCK_SUFFIX, StoreDir, covered_paths

_ALIVE_SECONDS = 1.0
_GRACE_SECONDS = 0.05
"""After an entry was made, so that who made it is seen; and after it has come of age, so that the
clocks of file system and process agree."""
_DYING_SECONDS = 0.01
"""After a lock was let go or a process ended: a builder may end a moment later than its worker."""
_FIRST_SECONDS, _LONGEST_SECONDS = 0.25, 30.0
_TOUCHED_SECONDS = 1.0
_SHARE = 20
"""After changes that nobody can name, whole sweeps take at most one part in so many of the time."""
_AHEAD_SECONDS = 60.0
"""What changed so far in the future did so before the clock was set back; it may take years."""
_PLAIN = frozenset({Claim.PATH_LOCK, Claim.USER_LOCK, Claim.PROCESS, Claim.ORPHAN})
"""Claims whose end a mere glance shows."""
_LASTING = frozenset({Claim.SHARED, Claim.MOUNT})
"""Claims that nobody alive need stand behind, so they may hold for ever."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An entry to look at again. `due` is of the monotonic clock, `since` is Unix time."""

    name: str
    due: float
    waited: float = 0.0
    """How long was waited for the last time; it doubles."""
    kind: str = ""
    since: float = 0.0
    """Of the first try that came to nothing."""
    reasons: tuple[str, ...] = ()
    """Why it could not be removed, though nothing alive is known to claim it. Else empty."""
    covering: tuple[str, ...] | None = ()
    """The locks that cover it, as far as is known; None where they cannot be known."""
    pids: frozenset[int] = frozenset()
    """Of those by whose end it may be dead."""
    new: bool = False
    """It was only told of: nothing has been seen at work on it, nor of its end."""
    let_go: bool = False
    """Whoever was at work on it has let go of it, or has ended, since it was looked at."""

    def alive(self, now: float, pids: frozenset[int] = frozenset()) -> "Suspect":
        """Something is seen to claim it: these processes, if any can be named."""
        return replace(self._afresh(now + _ALIVE_SECONDS), pids=pids)

    def released(self, now: float) -> "Suspect":
        """A lock that covers it was let go, or a process that kept it has ended."""
        due = min(self.due, now + _DYING_SECONDS)
        return replace(self._afresh(due), pids=self.pids, let_go=True)

    def young(self, now: float, missing: float) -> "Suspect":
        """It is so many seconds short of the least age."""
        return self._afresh(now + missing + _GRACE_SECONDS)

    def asked_for(self, now: float) -> "Suspect":
        """It is to be removed now; if it is not, it is looked at again."""
        return replace(self, due=now + _FIRST_SECONDS, new=False, let_go=False)

    def refused(self, now: float) -> "Suspect":
        """The helper saw a claim on it that cannot be seen from here."""
        return replace(self._later(now), since=0.0, reasons=())

    def failed(
        self, now: float, unix_time: float, kind: str, reasons: tuple[str, ...]
    ) -> "Suspect":
        """It should go and could not."""
        since = self.since or unix_time
        return replace(self._later(now), kind=kind, since=since, reasons=reasons)

    def _afresh(self, due: float) -> "Suspect":
        return Suspect(self.name, due, covering=self.covering)

    def _later(self, now: float) -> "Suspect":
        waited = min(max(_FIRST_SECONDS, self.waited * 2), _LONGEST_SECONDS)
        return replace(self, due=now + waited, waited=waited, new=False, let_go=False)


NEVER = Suspect("", float("inf"))


@dataclass(slots=True)
class Agenda:
    """What is to be done later, and when. Each `now` is of the monotonic clock."""

    suspects: dict[str, Suspect] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    """By the name of what may be made under it, the lock that was made."""
    touched: dict[str, float] = field(default_factory=dict)
    """Lock files that removals have taken, and until when their being closed says nothing."""
    finish: Suspect = NEVER
    """When to ask the helper again for what it may have left unfinished, if it failed."""
    swept: float = float("-inf")
    """When the last whole sweep ended."""
    sweep_seconds: float = 0.0
    """How long it took."""
    changed: bool = False
    """Something changed since it began, and only a whole sweep can tell what."""
    sweep_asked: bool = False
    """Somebody asked for a whole sweep."""

    def notice(self, names: Iterable[str], now: float, store_dir: StoreDir) -> None:
        """Look soon at what was made or changed; no event delays a look.

        A build takes its lock before it writes, so the lock is told of first.
        """
        for name in names:
            for path in covered_paths(name, store_dir):
                self.locks[path.base_name] = name
            if name not in self.suspects:
                covering = (self.locks[name],) if name in self.locks else ()
                due = now + _GRACE_SECONDS
                self.suspects[name] = Suspect(name, due, covering=covering, new=True)

    def forget_locks(self) -> None:
        """Forget which locks were made, but for those that are looked at again."""
        self.locks = {name: lock for name, lock in self.locks.items() if lock in self.suspects}

    def died(self, pid: int, now: float) -> None:
        """Look at once at what that process kept: it has ended."""
        for name, suspect in self.suspects.items():
            if pid in suspect.pids:
                self.suspects[name] = suspect.released(now)

    def release(self, locks: Iterable[str], now: float, store_dir: StoreDir) -> None:
        """Look at once at what these locks cover: who held one has let go of it or has ended."""
        self.touched = {lock: until for lock, until in self.touched.items() if until > now}
        free = set(locks) - self.touched.keys()
        looked = free | {path.base_name for lock in free for path in covered_paths(lock, store_dir)}
        for name, suspect in self.suspects.items() if free else ():
            if name in looked or not free.isdisjoint(suspect.covering or ()):
                self.suspects[name] = suspect.released(now)

    def touch(self, requests: Iterable[RemoveRequest], now: float) -> None:
        """Let the locks of these wake nobody for a moment: a removal took them and let go."""
        for name in [request.base_name for request in requests]:
            covering = self.suspect(name, now).covering or ()
            locks = (name, f"{name}{LOCK_SUFFIX}", *covering)
            self.touched |= dict.fromkeys(locks, now + _TOUCHED_SECONDS)

    def suspect(self, name: str, now: float) -> Suspect:
        """What is remembered of that entry."""
        return self.suspects.get(name) or Suspect(name, now)

    def cover(self, finding: Finding, now: float) -> None:
        """Remember which locks cover what is to be removed now."""
        suspect = self.suspect(finding.base_name, now)
        self.suspects[finding.base_name] = replace(suspect, covering=finding.covering)

    def keep(
        self, finding: Finding, kinds: Collection[EntryKind], least_age: float, now: float
    ) -> bool:
        """When to look again at what is not to be removed now, of the kinds that are removed.

        True, and nothing remembered, if all that claims it may do so for ever: it is stuck.
        """
        name, claims = finding.base_name, set(finding.judgement.claims)
        if finding.kind not in kinds or finding.judgement.verdict is not Verdict.KEEP:
            self.suspects.pop(name, None)
            return False
        suspect = replace(self.suspect(name, now), covering=finding.covering)
        age = finding.age or 0.0
        lasting = _LASTING if age > -_AHEAD_SECONDS else _LASTING | {Claim.TOO_YOUNG}
        if claims & _PLAIN:
            self.suspects[name] = suspect.alive(now, suspect.pids)
        elif claims == {Claim.TOO_YOUNG} and not claims & lasting:
            self.suspects[name] = suspect.young(now, least_age - age)
        elif claims - lasting:
            self.suspects[name] = suspect.refused(now)
        else:
            return True
        return False

    def wake_locks(self, now: float) -> None:
        """Look at lock files at once: what they cover may have been what has just gone."""
        for name, suspect in self.suspects.items():
            if name.endswith(LOCK_SUFFIX) and suspect.waited:
                self.suspects[name] = replace(suspect, due=now)

    def due(self, now: float) -> list[str]:
        """The names of those to look at now."""
        return [suspect.name for suspect in self.suspects.values() if suspect.due <= now]

    def sweep_at(self, config: Config) -> float:
        """When to look at the whole store next."""
        if self.sweep_asked:
            return self.swept
        if self.changed:
            return self.swept + max(config.poll_interval, self.sweep_seconds * _SHARE)
        return self.swept + config.sweep_interval

    def next_at(self, config: Config) -> float:
        """When something is to be done next, if nothing happens before."""
        first = min((one.due for one in self.suspects.values()), default=float("inf"))
        return min(first, self.finish.due, self.sweep_at(config))
