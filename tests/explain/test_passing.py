# SPDX-License-Identifier: MIT
"""A log goes through byte for byte and at once; signals, closed and full streams do no harm."""

import os
import select
import signal
import subprocess
import tempfile
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import PROGRAM, SECONDS
from storewarden.explain.passing import pass_on

EXPLAIN = [*PROGRAM, "explain"]
WEDGED = b"mkdir: cannot create directory '/nix/store/%s-a': Permission denied" % (b"0" * 32)


def started(stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """It, waiting for a log."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*EXPLAIN, "-"], stdin=pipe, stdout=stdout, stderr=pipe)


def shown(descriptor: int) -> bytes:
    """What comes within a few seconds."""
    assert select.select([descriptor], [], [], 20)[0]
    return os.read(descriptor, 65536)


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


def test_each_piece_passes_at_once_and_the_explanation_waits_for_the_end() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        for piece in (b"building", b"...", WEDGED):
            process.stdin.write(piece)
            process.stdin.flush()
            assert shown(process.stdout.fileno()) == piece
        assert select.select([process.stderr], [], [], 0)[0] == []
        process.stdin.close()
        assert b"known failure" in process.stderr.read()


def test_it_ends_with_its_reader_so_that_the_writer_learns_of_it() -> None:
    reading, writing = os.pipe()
    with started(stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        assert process.stdin
        assert process.stderr
        process.stdin.write(WEDGED)
        process.stdin.flush()
        assert b"1 known failure" in process.stderr.read()
        assert process.wait(SECONDS) == 0
        with pytest.raises(BrokenPipeError):
            os.write(process.stdin.fileno(), b"x")


def test_after_ctrl_c_the_end_of_the_log_is_still_passed_on_and_explained() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"building\n")
        process.stdin.flush()
        assert shown(process.stdout.fileno()) == b"building\n"
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(WEDGED, SECONDS)
    assert out == WEDGED
    assert b"1 known failure in 2 lines" in told
    assert process.returncode == 130


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    with started() as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"building\n")
        process.stdin.flush()
        assert shown(process.stdout.fileno())
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            select.select([], [], [], 0.2)
        assert b"interrupted" in process.stderr.read()
    assert process.returncode == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_does_not_stop_the_build() -> None:
    with open("/dev/full", "wb") as full, started(stdout=full.fileno()) as process:
        _, told = process.communicate(b"x" * 1000000 + b"\n" + WEDGED, SECONDS)
    assert process.returncode == 5
    assert b"could not be passed on whole: no space left on device" in told
    assert b"1 known failure" in told


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc tells of memory here")
def test_a_long_log_takes_no_more_memory_than_a_short_one() -> None:
    with started(stdout=subprocess.DEVNULL) as process:
        assert process.stdin
        for _ in range(300):  # 306 MB
            process.stdin.write(b"gcc -O2 -c foo.c -o foo.o\n" * 20000 + b"x" * 500000)
        # Not what wait4() tells: that counts what the tests' own process had when it forked.
        with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
            [peak] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
        process.stdin.close()
        assert process.wait(SECONDS) == 1
    assert int(peak) < 100 * 1024
