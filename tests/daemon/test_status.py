# SPDX-License-Identifier: MIT
"""What the service says of itself: written whole, read strictly."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from in_the_way import put
from storewarden.daemon.status import Status, Stuck, is_held, read_status, write_status
from storewarden.errors import StorewardenError

PLAIN = Status(pid=7, started=1.0, updated=2.0, mode="repair", store_dir="/nix/store")


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
    Status,
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
    problems=st.dictionaries(TEXTS, TEXTS),
)


@given(STATUSES)
def test_what_is_written_is_read_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, status: Status
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
    ids=range(23),
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
    assert read_status(str(tmp_path)) == Status(7, 1, 2, "repair", "/s")


def test_a_reader_never_sees_a_half_written_status(tmp_path: Path) -> None:
    statuses = [
        Status(7, 1, 2, "repair", "/s", sweeps=n, problems={"store": "x" * n * 9999})
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
