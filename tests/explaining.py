# SPDX-License-Identifier: MIT
"""Stories of entries of a throwaway store, with a stand-in that answers as nix-store would."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from json_documents import checked
from stand_in import write_answering_nix, write_program
from storewarden.explain.advice import advice
from storewarden.explain.locks import Around, look_at_locks
from storewarden.explain.pointing import point
from storewarden.explain.story import Story, tell
from storewarden.report.story_json import stories_json
from storewarden.store.entries import open_directory
from storewarden.store.nix import Nix
from storewarden.store.store import Store
from storewarden.throwaway import ThrowawayStore


def write_nix(directory: str, roots: Iterable[str] = (), referrers: Iterable[str] = ()) -> str:
    """A `nix`, and beside it a `nix-store` whose queries give these lines."""
    os.makedirs(directory, exist_ok=True)
    body = "case $2 in\n"
    for question, lines in (("--roots", roots), ("--referrers", referrers)):
        text = "".join(f"{line}\n" for line in lines)
        body += f"{question}) printf '%s' '{text}' ;;\n"
    write_program(f"{directory}/nix-store", body + "*) exit 1 ;;\nesac\n")
    write_answering_nix(f"{directory}/nix")
    return f"{directory}/nix"


def nix_of(place: ThrowawayStore, program: str) -> Nix:
    """That program, asked about this store."""
    return Nix(program, place.store_dir, place.state_dir)


@contextmanager
def around(place: ThrowawayStore | Store) -> Iterator[Around]:
    """What is looked at once."""
    store = place if isinstance(place, Store) else place.as_store()
    store_fd = open_directory(store.view)
    try:
        yield look_at_locks(store, store_fd)
    finally:
        os.close(store_fd)


def story_of(place: ThrowawayStore, nix: str, asked: str) -> Story:
    """The story of the entry that is asked for."""
    with around(place) as seen:
        story = tell(seen, nix_of(place, nix), point(asked, place.store_dir))
        told = [(story, advice(story))]
        checked(stories_json(told, seen.store, story.notes), "explain")
        return story
