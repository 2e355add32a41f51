# SPDX-License-Identifier: MIT
"""What a sweep gives: findings, and what could not be seen. Values only."""

from dataclasses import dataclass

from storewarden.claims import Judgement
from storewarden.sight import Lock
from storewarden.store.entries import Entry, EntryKind
from storewarden.store.paths import Deriver


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry, all that could be learned of it, and the judgement."""

    base_name: str
    kind: EntryKind
    judgement: Judgement
    entry: Entry | None = None
    """None for what is registered and not there."""
    owner_name: str | None = None
    age: float | None = None
    """Seconds since its last change (ctime)."""
    deriver: Deriver | None = None
    locks: tuple[Lock, ...] = ()
    covering: tuple[str, ...] | None = None
    """The locks that every build holds which may write there, if they are known; they need not
    be there."""
    size: int | None = None
    """Bytes on disk, as far as could be read."""
    size_complete: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """The findings of one pass over a store, and what could not be seen."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    nix_silent: str
    """Why Nix could not be asked; empty where it answered, or nothing was to be asked."""
    leftovers: bool
    """Whether an interrupted removal waits to be finished."""
