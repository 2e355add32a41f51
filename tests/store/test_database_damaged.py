# SPDX-License-Identifier: MIT
"""A database in which bytes have changed, as on a bad disk: refused in plain words, never a bug."""

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from helper.bench import names, request, run_requests
from storewarden.errors import StoreUnreadableError, StorewardenError
from storewarden.store.database import connect
from storewarden.throwaway import ThrowawayStore
from sweeps import look_at

FLIPS = 250


@pytest.fixture
def path(place: ThrowawayStore) -> str:
    """The database of a store with some debris, all of it in one file."""
    place.strand(place.add_derivation("x"))
    found = f"{place.state_dir}/db/db.sqlite"
    with closing(sqlite3.connect(found)) as connection, connection:
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute(
            "INSERT INTO DerivationOutputs SELECT id, 'out', ? FROM ValidPaths",
            (place.path(place.invent("known").base_name),),
        )
    return found


def change(path: str, change_it: Callable[[bytes], bytes]) -> None:
    with open(path, "rb") as file:
        before = file.read()
    with open(path, "wb") as file:
        file.write(change_it(before))


@pytest.mark.parametrize(
    ("word", "odd"),
    [(b"CREATE TABLE ValidPaths", b"CREATE \xffABLE ValidPaths"), (b"table", b"t\xe9ble")],
)
def test_a_schema_that_is_not_utf_8_is_refused_in_plain_words(
    word: bytes, odd: bytes, path: str, place: ThrowawayStore
) -> None:
    change(path, lambda content: content.replace(word, odd))
    with pytest.raises(StoreUnreadableError, match="cannot be read"), connect(place.state_dir) as c:
        c.execute("SELECT path FROM ValidPaths").fetchall()
    with pytest.raises(StoreUnreadableError, match="cannot be read"):
        look_at(place)


def test_no_changed_byte_is_a_bug_or_costs_anything(path: str, place: ThrowawayStore) -> None:
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)  # noqa: T201 - shown where it fails
    chance = random.Random(seed)  # noqa: S311 - no secret
    (dead,) = [one for one in look_at(place) if not one.endswith(".lock")]
    asked = [request(place, dead)]
    with open(path, "rb") as file:
        whole = file.read()
    used = [number for number, byte in enumerate(whole) if byte]
    valid = names(place)
    for _ in range(FLIPS):
        at = chance.choice(used)
        bit = 1 << chance.randrange(8)
        with open(path, "wb") as file:
            file.write(bytes_with(whole, at, bit))
        for refusal in (
            _refusal(lambda: look_at(place)),
            _refusal(lambda: run_requests(place, asked)),
        ):
            assert "\n" not in refusal
        assert valid - names(place) <= {dead}, f"byte {at}, bit {bit}"
    assert os.path.exists(path)


def _refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except StorewardenError as cause:
        return str(cause)
    return ""


def bytes_with(content: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= bit
    return bytes(changed)
