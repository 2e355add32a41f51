# SPDX-License-Identifier: MIT
"""The database of another store stops the engine, be that store on this machine or not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from storewarden.audit import Requester
from storewarden.client import request_for
from storewarden.errors import StoreUnreadableError
from storewarden.helper import engine
from storewarden.store.entries import EntryKind, look
from storewarden.throwaway import ThrowawayStore
from sweeps import valid_names


@pytest.mark.parametrize("others", [3, 20])
@pytest.mark.parametrize("there", [True, False])
def test_the_database_of_another_store_stops_the_engine(
    tmp_path: Path, others: int, *, there: bool
) -> None:
    other = ThrowawayStore.create(f"{tmp_path}/a")
    place = ThrowawayStore.create(f"{tmp_path}/another")
    for number in range(others):
        other.add_valid(f"a{number}")
    for number in range(3):
        place.add_valid(f"b{number}")
    output = place.strand(place.add_derivation("hello"))
    if not there:
        shutil.rmtree(other.store_dir.path)
    wrong = ThrowawayStore(place.store_dir, other.state_dir, place.builder)
    store = replace(wrong.as_store(), processes_of=lambda _: [])
    fd = os.open(place.store_dir.path, os.O_RDONLY)
    entry = look(fd, output.base_name)
    os.close(fd)
    assert entry is not None
    requests = [request_for(entry, EntryKind.OUTPUT)]
    who = Requester(0, 1, "a test")
    with pytest.raises(StoreUnreadableError, match="is --state-dir the one of this store"):
        list(engine.remove(store, requests, audit_log=f"{tmp_path}/log/a.jsonl", requester=who))
    assert os.path.exists(place.path(output.base_name))


def test_paths_of_another_store_directory_are_no_names_of_this(tmp_path: Path) -> None:
    one, other = (ThrowawayStore.create(f"{tmp_path}/{name}") for name in "ab")
    one.add_valid("a")
    assert len(one.store_dir.path) == len(other.store_dir.path)
    assert set(valid_names(one.state_dir, other.store_dir)) == set()
