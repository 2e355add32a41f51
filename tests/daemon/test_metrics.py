# SPDX-License-Identifier: MIT
"""The status as Prometheus reads it: as text, as a file, over HTTP."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from daemon.test_status import STATUSES
from in_the_way import put
from programs import promtool
from storewarden import __version__
from storewarden.claims import PROOF
from storewarden.daemon.families import PLACES
from storewarden.daemon.metrics import exposition, write_textfile
from storewarden.daemon.status import Status, Stuck
from storewarden.errors import StorewardenError
from storewarden.store.entries import EntryKind

IDLE = Status(pid=7, started=100.5, updated=200.25, mode="repair", store_dir="/nix/store")
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
def test_promtool_has_nothing_to_say_about_it(status: Status) -> None:
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
        "storewarden_stuck_since_timestamp_seconds",
    }


@given(STATUSES.map(lambda status: replace(status, found={}, removed={}, problems={}, stuck=())))
def test_whatever_the_texts_are_it_is_read_as_one_service(status: Status) -> None:
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
