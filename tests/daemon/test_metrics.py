# SPDX-License-Identifier: MIT
"""The status as Prometheus reads it: as text, as a file, over HTTP."""

import os
import re
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from daemon.test_status import STATUSES
from in_the_way import put
from programs import answer, eventually, free_port, promtool
from storewarden import __version__
from storewarden.claims import PROOF
from storewarden.daemon.metrics import answering, exposition, write_textfile
from storewarden.daemon.status import PLACES, WAITS, ServiceStatus, Stuck
from storewarden.errors import StorewardenError
from storewarden.store.entries import EntryKind

IDLE = ServiceStatus(pid=7, started=100.5, updated=200.25, mode="repair", store_dir="/nix/store")
BUSY = replace(
    IDLE,
    wakes="inotify",
    sweeps=41,
    swept=190.5,
    sweep_seconds=0.25,
    overflows=2,
    found={"output": 3, "lock": 1},
    watched=4,
    stuck=(Stuck("a", "output", 150.0, ("r",)), Stuck("b", "output", 120.0, ())),
    stuck_count=2,
    removed={"output": 10},
    removed_bytes=2**40,
    waited=(4, 0, 5, *(0,) * (len(WAITS) - 3), 1),
    waited_seconds=9000.5,
    registered_bytes=2**33,
    refused=5,
    failed=6,
    problems={"helper": "no"},
)

Samples = dict[tuple[str, str], float]


def samples(text: bytes) -> Samples:
    """Every value by name and the values of its labels."""
    return {
        (one.name, " ".join(one.labels.values())): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


@pytest.mark.parametrize("status", [IDLE, BUSY])
def test_promtool_has_nothing_to_say_about_it(status: ServiceStatus) -> None:
    done = promtool("check", "metrics", text=exposition(status).decode())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_would_say_so() -> None:
    done = promtool("check", "metrics", text="# TYPE some_count gauge\nsome_count 1\n")
    assert (done.returncode, "some_count" in done.stderr) == (3, True)


def test_every_part_of_the_status_is_told() -> None:
    told = samples(exposition(BUSY))
    wanted: Samples = {
        ("storewarden_info", f"repair /nix/store {__version__} inotify"): 1,
        ("storewarden_start_time_seconds", ""): 100.5,
        ("storewarden_updated_timestamp_seconds", ""): 200.25,
        ("storewarden_last_sweep_timestamp_seconds", ""): 190.5,
        ("storewarden_last_sweep_duration_seconds", ""): 0.25,
        ("storewarden_stuck_since_timestamp_seconds", ""): 120,
        ("storewarden_found_entries", "output"): 3,
        ("storewarden_found_entries", "lock"): 1,
        ("storewarden_suspect_entries", ""): 4,
        ("storewarden_stuck_entries", ""): 2,
        ("storewarden_stuck_listed_entries", "output"): 2,
        ("storewarden_sweeps_total", ""): 41,
        ("storewarden_overflows_total", ""): 2,
        ("storewarden_removed_total", "output"): 10,
        ("storewarden_removed_bytes_total", ""): 2**40,
        **{
            ("storewarden_stranded_to_removed_seconds_bucket", str(bound)): count
            for bound, count in zip(
                (*WAITS, "+Inf"), (4, 4, *(9,) * (len(WAITS) - 2), 10), strict=True
            )
        },
        ("storewarden_stranded_to_removed_seconds_count", ""): 10,
        ("storewarden_stranded_to_removed_seconds_sum", ""): 9000.5,
        ("storewarden_store_registered_bytes", ""): 2**33,
        ("storewarden_refused_total", ""): 5,
        ("storewarden_failed_total", ""): 6,
        ("storewarden_problem", "helper"): 1,
    }
    assert {key: value for key, value in told.items() if value} == wanted


def test_what_did_not_happen_yet_is_told_as_nought_and_moments_are_left_out() -> None:
    told, later = samples(exposition(IDLE)), samples(exposition(BUSY))
    for name, labels in (("found_entries", EntryKind), ("removed_total", PROOF)):
        assert [told[f"storewarden_{name}", str(kind)] for kind in labels] == [0] * len(labels)
    assert [told["storewarden_problem", where] for where in PLACES] == [0] * len(PLACES)
    assert {name for name, _ in later.keys() - told.keys()} == {
        "storewarden_info",  # another `wakes`
        "storewarden_last_sweep_timestamp_seconds",
        "storewarden_store_registered_bytes",
        "storewarden_stuck_since_timestamp_seconds",
    }


@given(STATUSES.map(lambda status: replace(status, found={}, removed={}, problems={}, stuck=())))
def test_whatever_the_texts_are_it_is_read_as_one_service(status: ServiceStatus) -> None:
    told = [one for one in samples(exposition(status)) if one[0] == "storewarden_info"]
    assert len(told) == 1


def test_the_global_registry_is_left_alone() -> None:
    exposition(BUSY)
    names = {one.name for one in REGISTRY.collect()}
    assert not [name for name in names if name.startswith("storewarden")]
    assert not re.search(rb"^(python|process)_", exposition(BUSY), re.MULTILINE)


def test_the_text_file_is_replaced_whole_and_everybody_may_read_it(tmp_path: Path) -> None:
    place = tmp_path / "storewarden.prom"
    before = os.umask(0o077)
    try:
        for status in (IDLE, BUSY):
            write_textfile(str(place), status)
            assert place.read_bytes() == exposition(status)
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["storewarden.prom"]


def test_a_link_in_the_text_file_s_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    for name in ("storewarden.prom", ".storewarden.prom.draft"):
        put(tmp_path / name, "a link")
    write_textfile(f"{tmp_path}/storewarden.prom", IDLE)
    assert not (tmp_path / "storewarden.prom").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("where", ["absent/storewarden.prom", "directory"])
def test_a_text_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(StorewardenError, match=r"cannot write the metrics to .*metrics-textfile"):
        write_textfile(f"{tmp_path}/{where}", IDLE)
    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.parametrize(
    ("host", "other"), [("127.0.0.1", "127.0.0.2"), ("[::1]", "127.0.0.1"), ("localhost", "")]
)
def test_the_latest_status_is_served_there_and_nowhere_else(host: str, other: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    latest, port = [IDLE], free_port()
    with answering(f"{host}:{port}", lambda: latest[-1]):
        plain = host.strip("[]")
        assert answer(port, "/metrics", plain) == (200, exposition(IDLE))
        latest.append(BUSY)
        assert answer(port, "/metrics?x", plain) == (200, exposition(BUSY))
        assert answer(port, "/", plain)[0] == 404
        if other:
            with pytest.raises(ConnectionRefusedError):
                answer(port, "/metrics", other)
    with pytest.raises(ConnectionRefusedError):
        answer(port, "/metrics", plain)


def test_clients_that_keep_silent_or_hang_up_hinder_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    with answering(f"127.0.0.1:{port}", lambda: BUSY):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for one in silent[:10]:
            one.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            one.close()
        assert answer(port, "/metrics")[0] == 200
        for one in silent:
            one.close()
    assert capfd.readouterr() == ("", "")
    assert not [one for one in threading.enumerate() if "serve_forever" in one.name]


def test_more_connections_than_a_service_can_bear_are_closed_and_the_next_ones_answered() -> None:
    port = free_port()
    with answering(f"127.0.0.1:{port}", lambda: BUSY), ExitStack() as stack:
        place = ("127.0.0.1", port)
        for _ in range(64):
            stack.enter_context(socket.create_connection(place, 5))
        with socket.create_connection(place, 5) as further:
            assert further.recv(1) == b""
        stack.close()
        eventually(lambda: answers(port), 10)


def answers(port: int) -> bool:
    try:
        return answer(port, "/metrics")[0] == 200
    except ConnectionError:
        return False


def test_a_port_in_use_and_a_host_that_is_none_are_clear_errors() -> None:
    port = free_port()
    wanted = r"cannot listen for Prometheus on .*; change metrics-listen"
    with answering(f"127.0.0.1:{port}", lambda: IDLE):
        for address in (f"127.0.0.1:{port}", "no.such.host.invalid:1", "[::g]:1", f"{'x' * 70}:1"):
            with (
                pytest.raises(StorewardenError, match=wanted),
                answering(address, lambda: IDLE),
            ):
                pytest.fail("it listens")
