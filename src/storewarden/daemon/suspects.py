# SPDX-License-Identifier: MIT
"""Entries to look at again soon, and when. Pure.

What is alive is looked at every second, which is cheap: a lock tells when it is let go, but nothing
tells when an orphan dies. What was refused or failed is tried again ever more rarely.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

_ALIVE_SECONDS = 1.0
_GRACE_SECONDS = 0.05
"""After an entry has come of age, so that the clocks of file system and process agree; and after a
lock was let go, because a builder may end a moment later than its worker, which held it."""
_FIRST_SECONDS, _LONGEST_SECONDS = 0.25, 30.0


@dataclass(frozen=True, slots=True)
class Suspect:
    """One entry. `due` is of the monotonic clock, `since` is Unix time, both in seconds."""

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
    """The locks that cover it, as far as it was looked at; None where they cannot be known."""


def noticed(name: str, now: float, min_age: float) -> Suspect:
    """An entry that has just been made or changed: looked at when it may be of age."""
    return Suspect(name, now + min_age + _GRACE_SECONDS)


def alive(suspect: Suspect, now: float) -> Suspect:
    """Something is seen to claim it."""
    return _afresh(suspect, now + _ALIVE_SECONDS)


def released(suspect: Suspect, now: float) -> Suspect:
    """A lock that covers it was let go."""
    return _afresh(suspect, min(suspect.due, now + _GRACE_SECONDS))


def young(suspect: Suspect, now: float, missing: float) -> Suspect:
    """It wants so many seconds to the least age."""
    return _afresh(suspect, now + missing + _GRACE_SECONDS)


def refused(suspect: Suspect, now: float) -> Suspect:
    """The helper saw a claim on it that cannot be seen from here."""
    return replace(_later(suspect, now), since=0.0, reasons=())


def failed(
    suspect: Suspect, now: float, unix_time: float, kind: str, reasons: tuple[str, ...]
) -> Suspect:
    """It should go and could not."""
    later = _later(suspect, now)
    return replace(later, kind=kind, since=suspect.since or unix_time, reasons=reasons)


def due(suspects: Mapping[str, Suspect], now: float) -> list[str]:
    """The names of those to look at now."""
    return [suspect.name for suspect in suspects.values() if suspect.due <= now]


def next_due(suspects: Mapping[str, Suspect]) -> float:
    """When the first is due; infinity where there is none."""
    return min((suspect.due for suspect in suspects.values()), default=float("inf"))


def _afresh(suspect: Suspect, due: float) -> Suspect:
    return Suspect(suspect.name, due, covering=suspect.covering)


def _later(suspect: Suspect, now: float) -> Suspect:
    waited = min(max(_FIRST_SECONDS, suspect.waited * 2), _LONGEST_SECONDS)
    return replace(suspect, due=now + waited, waited=waited)
