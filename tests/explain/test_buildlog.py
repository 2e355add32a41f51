# SPDX-License-Identifier: MIT
"""Reading a log: real texts, however they are dressed; hostile ones, in bounded time and memory."""

import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoted import DRESSES, STORE, Quoted, known, possible, reading, unlike
from storewarden.explain.buildlog import LONGEST_LINE, MOST_PATHS, BuildLog, pass_on
from storewarden.store.paths import StoreDir

DRESSED = pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES.keys())
WEDGED = (
    b"sh: line 3: can't create /nix/store/pp50q8kscfh1786ijgz74jk8sz34693v-job/log:"
    b" Permission denied\n"
)


@DRESSED
@pytest.mark.parametrize("quoted", known(), ids=str)
def test_a_known_failure_is_known_however_it_is_dressed(
    quoted: Quoted, dress: Callable[[str], bytes]
) -> None:
    told = reading(dress(quoted.text))
    assert [(seen.failure.name, seen.certain) for seen in told.seen] == [(quoted.name, True)]
    assert (told.seen[0].paths or ("",))[0] == quoted.about


@pytest.mark.parametrize(("quoted", "dress"), unlike(), ids=str)
def test_what_only_looks_like_one_is_not_taken_for_one(quoted: Quoted, dress: str) -> None:
    assert reading(DRESSES[dress](quoted.text)).seen == ()


@pytest.mark.parametrize(("quoted", "dress"), possible(), ids=str)
def test_what_may_be_one_is_told_as_no_more_than_that(quoted: Quoted, dress: str) -> None:
    told = reading(DRESSES[dress](quoted.text)).seen
    assert told
    assert not any(seen.certain for seen in told)


def test_at_least_forty_ordinary_failures_are_not_told_as_damage_to_nix() -> None:
    assert len({quoted for quoted, _ in unlike()}) >= 60


@pytest.mark.parametrize("quoted", known(), ids=str)
def test_the_line_that_tells_is_shown_with_its_number(quoted: Quoted) -> None:
    lines = [""] * 7 + quoted.text.splitlines()
    for seen in reading("\r\n".join(lines).encode()).seen:
        assert lines[seen.number - 1].startswith(seen.line.removesuffix("..."))


@pytest.mark.parametrize(
    "text",
    [
        "error: Cannot build 'DRV'.",
        "builder for \u2018DRV\u2019 failed with exit code 1",
        "error: builder for 'DRV' failed with exit code 1;",
        "error: build of 'DRV' failed",
        "error: build of 'DRV' on 'ssh://far' failed: builder for 'DRV' failed with exit code 1;",
    ],
)
def test_what_was_not_built_is_told_also_where_nothing_is_known(text: str) -> None:
    path = "/nix/store/fffgvdkj87wv91rp5sgvjj1y34jsvaza-etc.drv"
    told = reading(f"{text}\n".replace("DRV", path).encode())
    assert (told.seen, told.failed) == ((), (path,))


def test_a_line_is_told_once_and_counted_as_often_as_it_comes() -> None:
    (seen,) = reading(b"\n" + WEDGED * 5).seen
    assert (seen.number, seen.times, len(seen.paths)) == (2, 5, 1)


def test_a_program_of_an_own_output_is_told_only_where_the_log_builds_it() -> None:
    line = b"sh: line 1: /nix/store/pp50q8kscfh1786ijgz74jk8sz34693v-job/bin/x: Permission denied\n"
    built = b"error: Cannot build '/nix/store/fffgvdkj87wv91rp5sgvjj1y34jsvaza-job.drv'.\n"
    other = b"error: Cannot build '/nix/store/fffgvdkj87wv91rp5sgvjj1y34jsvaza-jo.drv'.\n"
    assert reading(line).seen == ()
    assert reading(line + other).seen == ()
    assert [seen.failure.name for seen in reading(line + built).seen] == ["output-denied"]
    assert reading(line + built) != reading(built + line)


def test_paths_of_another_store_directory_are_another_store_s() -> None:
    log = WEDGED.replace(b"/nix/store", b"/srv/store")
    assert reading(log).seen == ()
    reader = BuildLog(StoreDir("/srv/store"))
    reader.feed(log)
    (seen,) = reader.reading().seen
    assert seen.paths == ("/srv/store/pp50q8kscfh1786ijgz74jk8sz34693v-job",)


@given(st.data(), st.sampled_from([one.text for one in known()]), st.sampled_from([*DRESSES]))
def test_it_does_not_matter_where_a_log_is_cut_into_pieces(
    data: st.DataObject, text: str, dress: str
) -> None:
    log = DRESSES[dress](text)[-3000:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=8)))
    reader = BuildLog(STORE)
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        reader.feed(log[start:end])
    assert reader.reading() == reading(log)


NOISE = st.binary() | st.sampled_from(
    [b"\r", b"\n", b"\x1b[", b"\x1b]", b"@nix {", b"error: ", b"/nix/store/", b".drv", WEDGED, b"'"]
)


@given(st.lists(NOISE))
def test_whatever_is_in_a_log_it_is_read(pieces: list[bytes]) -> None:
    log = b"".join(pieces)
    told = reading(log)
    assert told.lines <= log.count(b"\n") + log.count(b"\r") + 1
    assert all(len(seen.paths) <= MOST_PATHS for seen in told.seen)


HOSTILE = {
    "one endless line": b"x" * 65536,
    "one endless line with marks": b"no space left on device " * 2700,
    "marks only": b"error: no space left on device\n" * 700,
    "escapes that do not end": b"\x1b[0;" * 16384,
    "titles that do not end": b"\x1b]0;" * 16384,
    "brackets": b"[1" * 32768 + b".drv\n",
    "prompts": b">" * 65536 + b".drv\n",
    "deep JSON": b"@nix {" + b'"a":[' * 13000 + b".drv\n",
    "long numbers in JSON": b'@nix {"a":' + b"9" * 65000 + b"}.drv\n",
    "store directories": b"/nix/store/" * 6000 + b".drv\n",
    "half signs": b"renaming '" * 6000 + b": directory not empty\n",
    "new names": b"".join(b"/nix/store/%032d-%d.drv\n" % (n, n) for n in range(1400)),
    "quotes": "\u2018".encode() * 20000 + b".drv\n",
}


@pytest.mark.parametrize("chunk", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_log_costs_neither_time_nor_memory(chunk: bytes) -> None:
    reader = BuildLog(STORE)
    reader.feed(chunk * 8)
    tracemalloc.start()
    begun = time.process_time()
    for _ in range(24):
        reader.feed(chunk)
    spent, peak = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Seen: at most 3 s, tracing included; what is quadratic takes minutes.
    assert spent < 60
    assert peak < 128 * LONGEST_LINE


def test_a_message_longer_than_any_line_is_read_in_pieces() -> None:
    told = reading(b"x" * (LONGEST_LINE + 70000) + b"\n" + WEDGED)
    assert [(seen.failure.name, seen.number) for seen in told.seen] == [("output-denied", 2)]


@given(st.lists(st.binary(max_size=70000), max_size=6))
def test_any_bytes_pass_unchanged(pieces: list[bytes]) -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            pipe.writelines(pieces)

    fed: list[bytes] = []
    writer = threading.Thread(target=write)
    with tempfile.TemporaryFile() as sink:
        writer.start()
        assert pass_on(reading, sink.fileno(), fed.append) is None
        writer.join()
        os.close(reading)
        sink.seek(0)
        assert sink.read() == b"".join(fed) == b"".join(pieces)


NO_SPACE = "x> write: No space left on device\n"
FAILED = "error: Cannot build '/nix/store/fffgvdkj87wv91rp5sgvjj1y34jsvaza-{}.drv'.\n"
NOT_VALID = "error: path '/nix/store/pp50q8kscfh1786ijgz74jk8sz34693v-job' is not valid\n"


@pytest.mark.parametrize(
    ("log", "certain"),
    [
        (NO_SPACE, True),
        (NO_SPACE + FAILED.format("x"), True),
        (NO_SPACE + "x> make: *** [Makefile:3: all] Error 1\n" + FAILED.format("x"), True),
        (NO_SPACE + FAILED.format("y"), None),
        (NO_SPACE + "x> 1 test failed, 3 passed\n", False),
        ("x> Running phase: checkPhase\n" + NO_SPACE, False),
        ("x> Running phase: checkPhase\nx> Running phase: installPhase\n" + NO_SPACE, True),
        (NO_SPACE + "x> compiling\n" * 300, False),
        (NO_SPACE + "error: attribute 'x' missing\n", False),
        (NOT_VALID, True),
        (NOT_VALID + "error: attribute 'x' missing\n", False),
        (NOT_VALID + FAILED.format("x"), True),
        (NOT_VALID + NO_SPACE, True),
        ("x> " + NOT_VALID, True),
        ("x> " + NOT_VALID + FAILED.format("x"), False),
        ("x> " + NOT_VALID + FAILED.format("y"), None),
        ("waiting for the big garbage collector lock...\n", True),
        ("waiting for the big garbage collector lock...\n" + "copying\n" * 30, False),
        ("waiting for the big garbage collector lock...\nerror: attribute 'x' missing\n", None),
        ("waiting for the big garbage collector lock...\nerror: interrupted by the user\n", True),
    ],
)
def test_it_counts_only_where_it_is_the_failure(log: str, certain: bool | None) -> None:  # noqa: FBT001
    told = reading(log.encode()).seen
    assert (told[0].certain if told else None) is certain


def test_a_note_of_nix_makes_a_full_disk_certain() -> None:
    note = "       note: build failure may have been caused by lack of free disk space\n"
    (seen,) = reading((NO_SPACE + "x> 1 test failed, 3 passed\n" + note).encode()).seen
    assert (seen.failure.name, seen.certain) == ("no-space", True)


def test_a_line_that_devenv_broke_is_read_whole() -> None:
    log = (
        "  │        error: path '/nix/store/pp50q8kscfh1786ijgz74jk8sz34693v-\n"
        "  │ job' is not\n"
        "  │ valid\n"
    )
    (seen,) = reading(log.encode()).seen
    assert seen.paths == ("/nix/store/pp50q8kscfh1786ijgz74jk8sz34693v-job",)
