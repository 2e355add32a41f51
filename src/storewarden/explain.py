# SPDX-License-Identifier: MIT
"""`storewarden explain PATH…` and `storewarden locks`: what is looked at, and said."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from storewarden.advice import advice
from storewarden.config import Config
from storewarden.json_explain import locks_json, stories_json
from storewarden.locks import Around, LockFile, all_locks, hidden_places, look_at_locks
from storewarden.opening import open_nix, open_store
from storewarden.pointing import point
from storewarden.report_explain import story_lines
from storewarden.report_locks import chosen, lock_lines
from storewarden.store.entries import open_directory
from storewarden.store.store import Store
from storewarden.store.verdict import Known
from storewarden.story import Story, What, tell

Say = Callable[[str], None]


def explain(config: Config, asked: Sequence[str], say: Say, note: Say, *, as_json: bool) -> str:
    """Tell of each entry that is asked for; gives why Nix was silent, or nothing.

    `NotInStoreError` before anything is said, if one leads to nothing in the store.
    """
    pointed = [point(one, config.store_dir) for one in asked]
    store, nix = open_store(config), open_nix(config)
    with _around(store) as around:
        told = []
        for number, one in enumerate(pointed):
            story = tell(around, nix, one)
            advised = advice(story)
            told.append((story, advised))
            if not as_json:
                for line in ([""] if number else []) + list(story_lines(story, advised)):
                    say(line)
    stories = [story for story, _ in told]
    notes = list(dict.fromkeys([n for story in stories for n in story.notes] + _limits(stories)))
    for text in notes:
        note(text)
    if as_json:
        say(stories_json(told, store, notes))
    return next((s.valid.detail for s in stories if s.valid.known is Known.UNKNOWN), "")


def _limits(stories: Sequence[Story]) -> list[str]:
    if os.geteuid() == 0 or not any(map(_dim, stories)):
        return []
    paths = " ".join(story.path for story in stories)
    return [f"as root more can be seen: sudo storewarden explain {paths}"]


def _dim(story: Story) -> bool:
    """Whether something could not be seen that root may see."""
    censored = story.roots is not None and any("{" in line for line in story.roots.lines)
    return (
        bool(story.rooted is None or story.uses.unseen or story.uses.unseen is None or censored)
        and story.what is not What.SHARED_FILE
    )


def locks(config: Config, say: Say, note: Say, *, everything: bool, as_json: bool) -> None:
    """Tell of the lock files: those that matter, or all."""
    store = open_store(config)
    with _around(store) as around:
        found = chosen(all_locks(around), everything=everything)
        notes = list(_locks_notes(around, found))
    if as_json:
        say(locks_json(found, store, notes))
    else:
        for line in lock_lines(found, time.time()):
            say(line)
    for text in notes:
        note(text)


def _locks_notes(around: Around, found: Sequence[LockFile]) -> Iterator[str]:
    if around.table is None:
        yield "who holds a lock cannot be seen here: there is no table of locks for it"
    for place in hidden_places(around.store.state_dir):
        yield f"{place} cannot be listed by this user: sudo storewarden locks"
    if any(lock.rooted is None for lock in found) and os.geteuid() != 0:
        yield "who waits can be seen by root: sudo storewarden locks"


@contextmanager
def _around(store: Store) -> Iterator[Around]:
    store_fd = open_directory(store.view)
    try:
        yield look_at_locks(store, store_fd)
    finally:
        os.close(store_fd)
