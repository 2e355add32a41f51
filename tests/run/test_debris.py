# SPDX-License-Identifier: MIT
"""What a failed command is said to have failed on, in a throwaway store."""

import os
import threading
import time
from collections.abc import Collection

from storewarden.explain.buildlog import BuildLog, Reading
from storewarden.run.debris import are_gone, blamed, names_in
from storewarden.store.paths import StorePath
from storewarden.throwaway import ThrowawayStore


def log_of(place: ThrowawayStore, *lines: str) -> Reading:
    log = BuildLog(place.store_dir)
    log.feed("\n".join(lines).encode())
    return log.reading()


def refused(place: ThrowawayStore, path: StorePath) -> str:
    full = place.store_dir.join(path.base_name)
    return f"mkdir: cannot create directory '{full}/x': Permission denied"


def told(place: ThrowawayStore, reading: Reading, before: Collection[str]) -> list[str]:
    return [one.base_name for one in blamed(place.as_store(), reading, before)]


def test_debris_that_the_log_names_and_that_lay_there_before_is_blamed(
    place: ThrowawayStore,
) -> None:
    path = place.strand(place.add_derivation("hello"))
    before = names_in(place.store_dir)
    assert told(place, log_of(place, refused(place, path)), before) == [path.base_name]


def test_what_came_later_is_not(place: ThrowawayStore) -> None:
    before = names_in(place.store_dir)
    path = place.strand(place.add_derivation("hello"))
    assert told(place, log_of(place, refused(place, path)), before) == []


def test_nor_is_a_valid_path_or_one_that_the_log_does_not_name(place: ThrowawayStore) -> None:
    place.strand(place.add_derivation("other"))
    valid = place.add_valid("hello")
    before = names_in(place.store_dir)
    assert told(place, log_of(place, refused(place, valid)), before) == []


def test_nor_is_one_in_a_failure_of_another_kind(place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("hello"))
    full = place.store_dir.join(path.base_name)
    before = names_in(place.store_dir)
    reading = log_of(place, f"error: path '{full}' is not valid")
    assert reading.seen
    assert told(place, reading, before) == []


def test_they_are_gone_when_somebody_else_has_removed_them(place: ThrowawayStore) -> None:
    path = place.strand(place.add_derivation("hello"))
    store = place.as_store()
    found = blamed(store, log_of(place, refused(place, path)), names_in(place.store_dir))
    assert not are_gone(store, found, 0)
    full = place.path(path.base_name)
    mover = threading.Timer(0.3, os.rename, (full, f"{place.store_dir.path}/../elsewhere"))
    began = time.monotonic()
    mover.start()
    assert are_gone(store, found, 30)
    mover.join()
    assert time.monotonic() - began < 10
