# SPDX-License-Identifier: MIT
"""Stories of entries of a throwaway store, with a stand-in that answers as nix-store would."""

import os
from collections.abc import Iterable

from json_documents import checked
from stand_in import write_answering_nix, write_program
from storewarden.cli.explain_paths import stories_json
from storewarden.explain.advice import advice
from storewarden.explain.entry import Pointed, Story, point, story_of_entry
from storewarden.observe import observe
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


def nix_of(place: ThrowawayStore | Store, program: str) -> Nix:
    """That program, asked about this store."""
    return Nix(program, place.store_dir, place.state_dir)


def story_of(place: ThrowawayStore | Store, nix: str, asked: str | Pointed) -> Story:
    """The story of the entry that is asked for."""
    store = place if isinstance(place, Store) else place.as_store()
    pointed = point(asked, store.store_dir) if isinstance(asked, str) else asked
    with observe(store) as seen:
        story = story_of_entry(seen, nix_of(store, nix), pointed)
    checked(stories_json([(story, advice(story), ())], store, story.notes), "explain")
    return story
