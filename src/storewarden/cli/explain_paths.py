# SPDX-License-Identifier: MIT
"""`storewarden explain PATH…` and `storewarden locks`: what is looked at, and said."""

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from storewarden.cli.console import note, progress, show, style
from storewarden.client import open_nix, open_store, this_store
from storewarden.config import Config
from storewarden.copyable import ThisStore, can_be_copied
from storewarden.explain.advice import advice
from storewarden.explain.locks import Around, LockFile, all_locks, hidden_places, look_at_locks
from storewarden.explain.pointing import point
from storewarden.explain.story import Story, What, tell
from storewarden.misplaced import check_place
from storewarden.report.locks import chosen, lock_lines
from storewarden.report.story import story_lines
from storewarden.report.story_json import locks_json, stories_json
from storewarden.store.entries import open_directory
from storewarden.store.fact import Known
from storewarden.store.store import Store


def explain(config: Config, asked: Sequence[str], *, as_json: bool) -> str:
    """Tell of each entry that is asked for; gives why Nix was silent, or nothing.

    `NotInStoreError` before anything is said, if one leads to nothing in the store.
    """
    pointed = [point(one, config.store_dir) for one in asked]
    store, nix, this = open_store(config), open_nix(config), this_store(config)
    with _around(store) as around:
        told, look = [], style()
        for number, one in enumerate(pointed):
            with progress(f"looking at {one.base_name}"):
                story = tell(around, nix, one)
            advised = advice(story, this)
            told.append((story, advised))
            if not as_json:
                for line in ([""] if number else []) + list(story_lines(story, advised, look)):
                    show(line)
    stories = [story for story, _ in told]
    notes = [note for story in stories for note in story.notes]
    notes = list(dict.fromkeys(notes + _limits(stories, this)))
    for text in notes:
        note(text)
    if as_json:
        show(stories_json(told, store, notes))
    return next((s.valid.detail for s in stories if s.valid.known is Known.UNKNOWN), "")


def _limits(stories: Sequence[Story], this: ThisStore) -> list[str]:
    if os.geteuid() == 0 or not any(map(_dim, stories)):
        return []
    command = shlex.join(["sudo", "storewarden", "explain", *(story.path for story in stories)])
    shown = f": {this.command(command)}" if can_be_copied(command) else ""
    return [f"as root more can be seen{shown}"]


def _dim(story: Story) -> bool:
    """Whether something could not be seen that root may see."""
    censored = story.roots is not None and any("{" in line for line in story.roots.lines)
    return (
        bool(story.rooted is None or story.uses.unseen or story.uses.unseen is None or censored)
        and story.what is not What.SHARED_FILE
    )


def locks(config: Config, *, everything: bool, as_json: bool) -> None:
    """Tell of the lock files: those that matter, or all."""
    store = open_store(config)
    with progress("looking at the lock files"), _around(store) as around:
        found = chosen(all_locks(around), everything=everything)
        notes = list(_locks_notes(around, found, this_store(config)))
    if as_json:
        show(locks_json(found, store, notes))
    else:
        for line in lock_lines(found, time.time(), style()):
            show(line)
    for text in notes:
        note(text)


def _locks_notes(around: Around, found: Sequence[LockFile], this: ThisStore) -> Iterator[str]:
    as_root = this.command("sudo storewarden locks")
    if around.table is None:
        yield "who holds a lock cannot be seen here: there is no table of locks for it"
    for place in hidden_places(around.store.state_dir):
        yield f"{place} cannot be listed by this user: {as_root}"
    if any(lock.rooted is None for lock in found) and os.geteuid() != 0:
        yield f"who waits can be seen by root: {as_root}"


@contextmanager
def _around(store: Store) -> Iterator[Around]:
    check_place(store)
    store_fd = open_directory(store.view)
    try:
        yield look_at_locks(store, store_fd)
    finally:
        os.close(store_fd)
