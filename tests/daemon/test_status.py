# SPDX-License-Identifier: MIT
"""What the service writes of itself, whole; the lock that says that it runs, between processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from in_the_way import put
from storewarden.daemon.status import (
    AlreadyRunningError,
    Removed,
    ServiceStatus,
    Stuck,
    held,
    is_held,
    read_status,
    write_status,
)
from storewarden.errors import StorewardenError

PLAIN = ServiceStatus(pid=7, started=1.0, updated=2.0, mode="repair", store_dir="/nix/store")


@pytest.mark.parametrize("what", ["a link", "a directory", "a pipe"])
def test_what_lies_in_the_status_way_is_not_read(tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps({"version": 1}))
    put(tmp_path / "status.json", what)
    with pytest.raises(StorewardenError, match=r"cannot read .*/status.json: "):
        read_status(str(tmp_path))


def test_a_link_in_the_status_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    for name in ("status.json", ".status.json.draft"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    write_status(str(tmp_path), PLAIN)
    assert sorted(os.listdir(tmp_path)) == ["status.json"]
    assert read_status(str(tmp_path)) == PLAIN


def test_nothing_said_yet_is_none(tmp_path: Path) -> None:
    assert read_status(str(tmp_path)) is None
    assert read_status(f"{tmp_path}/absent") is None
    assert not is_held(f"{tmp_path}/absent")


TEXTS = st.text() | st.binary(max_size=40).map(os.fsdecode)
TIMES = st.floats(-1e10, 4e10) | st.integers(0, 10**10).map(float)
STATUSES = st.builds(
    ServiceStatus,
    pid=st.integers(),
    started=TIMES,
    updated=TIMES,
    mode=TEXTS,
    store_dir=TEXTS,
    swept=st.none() | TIMES,
    sweep_seconds=TIMES,
    found=st.dictionaries(TEXTS, st.integers()),
    stuck=st.lists(
        st.builds(Stuck, TEXTS, TEXTS, TIMES, st.lists(TEXTS, max_size=3).map(tuple)), max_size=3
    ).map(tuple),
    removed=st.dictionaries(TEXTS, st.integers()),
    recent=st.lists(
        st.builds(Removed, TEXTS, TEXTS, TIMES, st.integers(), st.integers(0, 10**15)), max_size=3
    ).map(tuple),
    ended=st.booleans(),
    problems=st.dictionaries(TEXTS, TEXTS),
)


@given(STATUSES)
def test_what_is_written_is_read_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, status: ServiceStatus
) -> None:
    runtime_dir = str(tmp_path_factory.getbasetemp())
    write_status(runtime_dir, status)
    assert read_status(runtime_dir) == status


def test_a_hundred_stuck_entries_with_long_reasons_are_read(tmp_path: Path) -> None:
    reasons = tuple(f"{number}\udcff" * 100 for number in range(30))
    stuck = tuple(Stuck("\udcff" * 255, "foreign", 1.0, reasons) for _ in range(100))
    status = replace(PLAIN, stuck=stuck)
    write_status(str(tmp_path), status)
    assert read_status(str(tmp_path)) == status


DOCUMENT = {"version": 1, "pid": 7, "started": 1, "updated": 2, "mode": "repair", "store_dir": "/s"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Expecting value"),
        (json.dumps(DOCUMENT).encode()[:-9], "Unterminated"),
        (b'{"\xff', "codec"),
        (b"[" * 100_000, ""),
        (b"[1]", "of version None, not 1"),
        (b"{}", "of version None, not 1"),
        (json.dumps({**DOCUMENT, "version": 2}).encode(), "of version 2, not 1"),
        (b'{"version": 1}', "missing 5 required"),
        (b'{"version": 1, "pid": ' + b"9" * 5000 + b"}", "digits"),
        (b" " * (16 * 1024 * 1024 + 1), "longer than a status can be"),
        *(
            (json.dumps({**DOCUMENT, **odd}).encode(), " stands where ")
            for odd in (
                {"pid": "7"},
                {"pid": True},
                {"ended": 1},
                {"started": True},
                {"started": None},
                {"started": 1e300},
                {"swept": "never"},
                {"mode": 3},
                {"found": 3},
                {"found": {"output": "two"}},
                {"problems": ["store"]},
            )
        ),
        (json.dumps({**DOCUMENT, "updated": float("nan")}).encode(), "nan stands where"),
        (json.dumps({**DOCUMENT, "stuck": [{"name": "x"}]}).encode(), "missing 3 required"),
        (json.dumps({**DOCUMENT, "stuck": ["x"]}).encode(), "'x' stands where"),
    ],
    ids=range(24),
)
def test_what_is_no_status_is_one_clear_error(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "status.json").write_bytes(text)
    with pytest.raises(StorewardenError) as refused:
        read_status(str(tmp_path))
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"cannot understand {tmp_path}/status.json: ")
    assert str(refused.value).endswith("; restart the service, which writes it anew")
    assert "\n" not in str(refused.value)


def test_members_of_a_later_storewarden_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({**DOCUMENT, "later": {"a": [1]}}))
    assert read_status(str(tmp_path)) == ServiceStatus(7, 1, 2, "repair", "/s")


def test_a_reader_never_sees_a_half_written_status(tmp_path: Path) -> None:
    statuses = [
        ServiceStatus(7, 1, 2, "repair", "/s", sweeps=n, problems={"store": "x" * n * 9999})
        for n in range(1, 4)
    ]
    write_status(str(tmp_path), statuses[0])
    done = threading.Event()

    def write() -> None:
        for number in range(600):
            write_status(str(tmp_path), statuses[number % 3])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not done.is_set():
        assert read_status(str(tmp_path)) in statuses
        seen += 1
    writer.join()
    assert seen > 10
    assert os.stat(tmp_path / "status.json").st_mode & 0o777 == 0o644


HOLD = """
import sys
from storewarden.daemon.status import held
with held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def service(runtime_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the runtime directory until its stdin ends."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(runtime_dir)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield process
        finally:
            process.kill()


def said_held(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_second_service_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    with service(tmp_path / "run") as first:
        assert said_held(first) == "held\n"
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / "run")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"AlreadyRunningError: storewarden already watches, as process {first.pid} (" in (
            done.stderr
        )
        assert "held" not in done.stdout
        assert is_held(str(tmp_path / "run"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_the_service_however_it_ends(tmp_path: Path, number: int) -> None:
    runtime_dir = str(tmp_path)
    assert not is_held(runtime_dir)
    with service(tmp_path) as process:
        assert said_held(process) == "held\n"
        assert is_held(runtime_dir)
        process.send_signal(number)
        process.wait()
        assert not is_held(runtime_dir)
        with held(runtime_dir):
            assert is_held(runtime_dir)
            assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    assert not is_held(runtime_dir)


def test_what_an_earlier_service_said_is_forgotten_when_another_starts(tmp_path: Path) -> None:
    earlier = ServiceStatus(7, 1, 2, "repair", "/nix/store")
    with held(str(tmp_path)):
        write_status(str(tmp_path), earlier)
        with pytest.raises(AlreadyRunningError), held(str(tmp_path)):
            pytest.fail("two would run")
        assert read_status(str(tmp_path)) == earlier
    assert read_status(str(tmp_path)) == earlier
    with held(str(tmp_path)):
        assert read_status(str(tmp_path)) is None


def test_readers_who_ask_without_end_do_not_keep_a_service_from_starting(tmp_path: Path) -> None:
    (tmp_path / "pid").touch()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            is_held(str(tmp_path))

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            with held(str(tmp_path)):
                assert is_held(str(tmp_path))
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_service_waits_out_a_reader_that_looks_at_that_very_moment(tmp_path: Path) -> None:
    with open(tmp_path / "pid", "w+b") as probe:
        fcntl.flock(probe, fcntl.LOCK_SH)
        timer = threading.Timer(0.3, fcntl.flock, (probe, fcntl.LOCK_UN))
        timer.start()
        with held(str(tmp_path)):
            assert is_held(str(tmp_path))
        timer.join()


def test_a_lock_that_stays_is_refused_after_a_second(tmp_path: Path) -> None:
    with open(tmp_path / "pid", "w+b") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(AlreadyRunningError, match="as process unknown"), held(str(tmp_path)):
            pytest.fail("two would run")


@pytest.mark.parametrize("what", ["a link", "a directory", "a pipe"])
def test_what_lies_in_the_way_is_an_error_and_left_alone(tmp_path: Path, what: str) -> None:
    put(tmp_path / "pid", what)
    with (
        pytest.raises(StorewardenError, match=r"cannot use the runtime directory .*; set runtime"),
        held(str(tmp_path)),
    ):
        pytest.fail("it holds something else")
    with pytest.raises(StorewardenError, match=r"cannot read .*/pid: "):
        is_held(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["pid"]


def asked_by_another(question: str, runtime_dir: Path) -> "subprocess.CompletedProcess[str]":
    """What a user who is not the service's is told."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    look = f"""
import os, sys
from storewarden.daemon.status import is_held, read_status
os.setgid(65534)
os.setuid(65534)
print({question}(sys.argv[1]))
"""
    return subprocess.run(
        [sys.executable, "-c", look, str(runtime_dir)], capture_output=True, text=True, check=False
    )


def test_nobody_else_can_hold_the_lock_and_all_can_see_whether_it_runs(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents[:3]):
        if place.stat().st_uid == os.geteuid() and place != Path("/tmp"):  # noqa: S108 - as it is
            place.chmod(0o755)
    with service(tmp_path / "run") as process:
        assert said_held(process) == "held\n"
        assert (tmp_path / "run" / "pid").stat().st_mode & 0o077 == 0
        write_status(
            str(tmp_path / "run"), ServiceStatus(process.pid, time.time(), 2, "repair", "/nix")
        )
        assert asked_by_another("is_held", tmp_path / "run").stdout == "True\n"
        write_status(str(tmp_path / "run"), ServiceStatus(process.pid, 1000.0, 2, "repair", "/nix"))
        assert asked_by_another("is_held", tmp_path / "run").stdout == "False\n"
        process.kill()
        process.wait()
        write_status(
            str(tmp_path / "run"), ServiceStatus(process.pid, time.time(), 2, "repair", "/nix")
        )
        assert asked_by_another("is_held", tmp_path / "run").stdout == "False\n"


def test_who_may_not_look_is_told_to_ask_as_root(tmp_path: Path) -> None:
    private = tmp_path / "run"
    private.mkdir(mode=0o700)
    for question in ("is_held", "read_status"):
        done = asked_by_another(question, private)
        (line,) = [one for one in done.stderr.splitlines() if "StorewardenError: " in one]
        assert "permission denied; ask as root: sudo storewarden status" in line


def test_whether_one_runs_that_has_said_nothing_yet_is_seen_by_all(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents[:3]):
        if place.stat().st_uid == os.geteuid() and place != Path("/tmp"):  # noqa: S108 - as it is
            place.chmod(0o755)
    with service(tmp_path / "run") as process:
        assert said_held(process) == "held\n"
        assert asked_by_another("is_held", tmp_path / "run").stdout == "True\n"
        process.kill()
        process.wait()
        assert asked_by_another("is_held", tmp_path / "run").stdout == "False\n"
