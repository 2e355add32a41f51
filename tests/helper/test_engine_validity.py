# SPDX-License-Identifier: MIT
"""Both witnesses must say that a path is not valid; what they cannot tell keeps it."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from helper.bench import kept, names, records, run
from storewarden.errors import StoreUnreadableError
from storewarden.protocol import Outcome
from storewarden.store.paths import StorePath
from storewarden.store.store import NO, Fact, Known
from storewarden.throwaway import ThrowawayStore

AskNix = Callable[[Sequence[StorePath]], dict[StorePath, Fact]]


def says(fact: Fact, act: Callable[[], object] = lambda: None) -> AskNix:
    """A Nix that says the same of every path, while something happens."""

    def ask(paths: Sequence[StorePath]) -> dict[StorePath, Fact]:
        act()
        return dict.fromkeys(paths, fact)

    return ask


def kept_by(place: ThrowawayStore, path: StorePath, ask: AskNix) -> Outcome:
    """What the engine says of an entry that stays when Nix answers so."""
    return kept(place, path.base_name, replace(place.as_store(), ask_nix=ask))


def test_what_only_the_database_knows_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    place.register(scratch)
    outcome = kept_by(place, scratch, says(NO))
    assert outcome.reasons == ("the database has it as a valid path",)
    assert not outcome.unproved


def test_what_only_nix_knows_stays(place: ThrowawayStore, scratch: StorePath) -> None:
    outcome = kept_by(place, scratch, says(Fact(Known.YES)))
    assert outcome.reasons == ("Nix says it is a valid path",)
    assert not outcome.unproved


def test_what_was_registered_since_nix_was_asked_stays(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    outcome = kept_by(place, scratch, says(NO, lambda: place.register(scratch)))
    assert outcome.reasons == ("the database has it as a valid path",)


def test_a_nix_that_cannot_tell_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    outcome = kept_by(place, scratch, says(Fact(Known.UNKNOWN, "no daemon")))
    assert outcome.reasons == ("Nix could not be asked whether it is valid (no daemon)",)
    assert outcome.unproved


def test_a_nix_that_says_nothing_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    assert kept_by(place, scratch, lambda _: {}).unproved


def test_a_nix_that_speaks_of_other_paths_keeps_it(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    assert kept_by(place, scratch, lambda _: {place.invent("other"): NO}).unproved


def database(place: ThrowawayStore) -> str:
    return f"{place.state_dir}/db/db.sqlite"


def vanish(place: ThrowawayStore) -> None:
    os.rename(database(place), f"{database(place)}.away")


def become_a_new_schema(place: ThrowawayStore) -> None:
    with open(f"{place.state_dir}/db/schema", "w", encoding="ascii") as file:
        file.write("11")


def become_garbage(place: ThrowawayStore) -> None:
    vanish(place)
    with open(database(place), "wb") as file:
        file.write(b"not a database" * 1000)


def become_empty(place: ThrowawayStore) -> None:
    vanish(place)
    with open(database(place), "wb"):
        pass


def lose_its_table(place: ThrowawayStore) -> None:
    with closing(sqlite3.connect(database(place))) as connection, connection:
        connection.execute("DROP TABLE ValidPaths")


BREAKAGES = [vanish, become_a_new_schema, become_garbage, become_empty, lose_its_table]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_database_that_breaks_under_way_keeps_it(
    breakage: Callable[[ThrowawayStore], None], place: ThrowawayStore, scratch: StorePath
) -> None:
    outcome = kept_by(place, scratch, says(NO, lambda: breakage(place)))
    assert outcome.unproved
    assert outcome.reasons[0].startswith("the database could not be read here")


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_database_is_a_broken_world(
    breakage: Callable[[ThrowawayStore], None], place: ThrowawayStore, scratch: StorePath
) -> None:
    breakage(place)
    before = names(place)
    with pytest.raises(StoreUnreadableError):
        run(place, scratch.base_name, store=replace(place.as_store(), ask_nix=says(NO)))
    assert names(place) == before
    assert not records(place)


@pytest.mark.slow
def test_a_database_locked_under_way_keeps_it(place: ThrowawayStore, scratch: StorePath) -> None:
    with closing(sqlite3.connect(database(place), isolation_level=None)) as connection:

        def lock() -> None:
            connection.execute("PRAGMA locking_mode = exclusive")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("DELETE FROM Refs")

        outcome = kept_by(place, scratch, says(NO, lock))
        assert outcome.unproved
        assert "stayed locked for 5 s" in outcome.reasons[0]
        connection.execute("ROLLBACK")


def test_a_long_write_to_the_database_stops_nothing(
    place: ThrowawayStore, scratch: StorePath
) -> None:
    with closing(sqlite3.connect(database(place), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM Refs")
        outcomes = run(place, scratch.base_name)
        connection.execute("ROLLBACK")
    assert [outcome.status for outcome in outcomes] == ["taken", "removed"]
