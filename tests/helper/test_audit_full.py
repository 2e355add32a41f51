# SPDX-License-Identifier: MIT
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helper.bench import at, log_of, names, records, request, run
from helper.child import in_child, mount, needs_root, take_own_mounts
from storewarden.audit import Other, Requester
from storewarden.audit_reading import verify
from storewarden.errors import AuditUnavailableError
from storewarden.helper.audit import open_log
from storewarden.helper.engine import remove
from storewarden.store.paths import path_lock
from storewarden.throwaway import ThrowawayStore


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """While no file of this process can grow beyond that: writes become short, then fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(act: Callable[[], object]) -> str:
    """The text with which the log says that it is not available, "" where it is."""
    try:
        act()
    except AuditUnavailableError as cause:
        return str(cause)
    return ""


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_short_write_is_an_error_and_is_mended_next_time(room: int, tmp_path: Path) -> None:
    path = str(tmp_path / "log" / "audit.jsonl")
    with open_log(path) as log:
        log.append(Other("note"))

    def short() -> list[str]:
        with open_log(path) as log:
            with files_end_at(os.stat(path).st_size + room):
                first = refused(lambda: log.append(Other("note")))
            return [first, refused(lambda: log.append(Other("note")))]

    first, second = in_child(short)
    assert first.endswith(os.strerror(errno.EFBIG).lower())
    assert "is torn" in second
    assert os.path.exists(f"{path}.reserve"), "that is for a full disk alone"
    with open_log(path) as log:
        assert log.append(Other("note")) == (3 if room else 2)
    assert verify(path).problem == ""


@pytest.mark.parametrize("room", [0, 1, 50])
def test_nothing_leaves_the_store_when_the_intent_cannot_be_written(
    room: int, place: ThrowawayStore
) -> None:
    path = place.strand(place.add_derivation("x"))
    with open_log(log_of(place)) as log:
        log.append(Other("note"))
    before = names(place)

    def fail(step: str) -> None:
        if step == "proved":
            limit = os.stat(log_of(place)).st_size + room
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    said = in_child(lambda: refused(lambda: run(place, path.base_name, checkpoint=fail)))
    assert "cannot write the audit log" in said
    assert names(place) == before
    assert [outcome.status for outcome in run(place, path.base_name)] == ["taken", "removed"]
    assert verify(log_of(place)).problem == ""


def test_a_removal_whose_result_cannot_be_written_is_concluded_by_the_next_run(
    place: ThrowawayStore,
) -> None:
    path = place.strand(place.add_derivation("x"))

    def fail(step: str) -> None:
        if step == "purged":
            limit = os.stat(log_of(place)).st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    said = in_child(lambda: refused(lambda: run(place, path.base_name, checkpoint=fail)))
    assert "not on record" in said
    assert path.base_name not in names(place)
    assert verify(log_of(place)).open_intents == 1
    (resumed,) = run(place)
    assert (resumed.base_name, resumed.status) == (path.base_name, "removed")
    assert verify(log_of(place)).open_intents == 0


def test_what_cannot_be_put_on_record_is_told_beside_what_became_of_it(
    place: ThrowawayStore,
) -> None:
    path = place.strand(place.add_derivation("x"))

    def fail() -> None:
        limit = os.stat(log_of(place)).st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os.unlink(place.path(path_lock(path)))

    def told() -> list[list[str]]:
        seen: list[list[str]] = []
        outcomes = remove(
            place.as_store(),
            [request(place, path.base_name)],
            audit_log=log_of(place),
            requester=Requester(os.geteuid(), os.getpid(), "test"),
            checkpoint=at("taken", fail),
        )
        with pytest.raises(AuditUnavailableError, match="the end of a removal is not on record"):
            seen.extend([outcome.status.value, *outcome.reasons] for outcome in outcomes)
        return seen

    ((status, became, unwritten),) = in_child(told)
    assert status == "kept"
    assert became == "a lock of it was let go or taken away at the last moment, so it was put back"
    assert unwritten.startswith("cannot write the audit log")
    assert path.base_name in names(place)


def test_what_was_taken_before_the_log_failed_is_purged_and_the_rest_stays(
    place: ThrowawayStore,
) -> None:
    paths = [place.strand(place.add_derivation(name)).base_name for name in "abc"]
    with open_log(log_of(place)) as log:
        log.append(Other("note"))
    seen: list[str] = []

    def fail(step: str) -> None:
        seen.append(step)
        if step == "proved" and seen.count("proved") == 2:
            limit = os.stat(log_of(place)).st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    said = in_child(lambda: refused(lambda: run(place, *paths, checkpoint=fail)))
    assert "cannot write the audit log" in said
    assert names(place) & set(paths) == set(paths[1:])
    assert not [name for name in names(place) if name.startswith("tmp-")]
    assert len(records(place, "intent")) == 1


@needs_root
def test_a_full_disk_leaves_room_for_the_log_once(tmp_path: Path) -> None:
    def on_a_tiny_disk() -> int:
        take_own_mounts()
        mount("-t", "tmpfs", "-o", "size=128k", "none", str(tmp_path))
        path = str(tmp_path / "log" / "audit.jsonl")
        with open_log(path) as log:
            fill(str(tmp_path / "filler"))
            while os.path.exists(f"{path}.reserve"):
                log.append(Other("note", {"text": "x" * 1000}))
            room = 0
            while not refused(lambda: log.append(Other("note", {"text": "x" * 1000}))):
                room += 1
        os.unlink(tmp_path / "filler")
        with open_log(path) as log:
            log.append(Other("note"))
        assert verify(path).problem == ""
        return room

    assert in_child(on_a_tiny_disk) > 50


@needs_root
def test_without_a_reserve_a_full_disk_means_that_nothing_is_removed(
    place: ThrowawayStore,
) -> None:
    path = place.strand(place.add_derivation("x"))
    before = names(place)
    asked = request(place, path.base_name)

    def on_a_tiny_disk() -> str:
        take_own_mounts()
        log = os.path.dirname(log_of(place))
        os.mkdir(log, 0o750)
        mount("-t", "tmpfs", "-o", "size=64k", "none", log)
        fill(f"{log}/filler")
        assert asked == request(place, path.base_name)
        return refused(lambda: run(place, path.base_name))

    assert in_child(on_a_tiny_disk).endswith("no space left on device")
    assert names(place) == before


def fill(path: str) -> None:
    """Write to the last byte of the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError as cause:
        assert cause.errno == errno.ENOSPC  # noqa: PT017 - any other is a bug of the test
    finally:
        os.close(fd)
