# SPDX-License-Identifier: MIT
"""`storewarden status`: for a tired person, as JSON, and by exit code."""

import json
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from command import PROGRAM, report, run
from daemon.test_status import STATUSES
from json_documents import checked
from storewarden.cli.status import noticed, status_json, status_lines
from storewarden.daemon.status import (
    PLACES,
    Doubtful,
    ServiceStatus,
    Stuck,
    held,
    write_status,
)
from storewarden.readable import DECLARE

NOW = 1_800_000_000.0
DRV, JOB = "26dj2bx997d5cck7cp3yv8zga3rcmw5f-job.drv", "5ggzvw75f943by0ixgziy7fiq4k9wfc9-job"
WELL = ServiceStatus(
    pid=7,
    started=NOW - 3 * 3600,
    updated=NOW - 1,
    mode="repair",
    store_dir="/nix/store",
    wakes="inotify",
    sweeps=41,
    swept=NOW - 60,
    sweep_seconds=0.25,
    found={"output": 2, "lock": 0},
)
STUCK = Stuck("aaa-gone", "output", NOW - 600, ("a mount lies in it", "root has to unmount it"))
BAD = replace(
    WELL,
    stuck=(STUCK,),
    stuck_count=3,
    removed={"output": 10, "lock": 2},
    removed_bytes=2048,
    watched=4,
    refused=5,
    failed=6,
    overflows=1,
    problems={"helper": "connection refused"},
)


def text(status: ServiceStatus | None, *, running: bool = True) -> str:
    return "\n".join(status_lines(status, NOW, running=running))


def test_a_service_that_does_well_is_told_in_a_few_lines() -> None:
    said = text(WELL)
    assert said.startswith("storewarden is running since 20")
    assert "(3 h ago)" in said.splitlines()[0]
    assert "repair: what is proved dead is removed" in said
    assert "/nix/store, told of changes by inotify" in said
    assert "41 times, the last on 20" in said
    assert "(60 s ago), in 0.25 s" in said
    assert "  found     2 output in that sweep" in said
    assert "  removed   nothing since its start" in said
    assert said.endswith("\nall is well")
    assert len(said.splitlines()) == 8


def test_what_needs_somebody_is_told_with_its_reasons_and_what_to_do_next() -> None:
    said = text(BAD)
    assert "STUCK: 3 should go and could not be removed\n  /nix/store/aaa-gone\n" in said
    assert "(10 min ago)\n    a mount lies in it\n    root has to unmount it\n" in said
    assert "  and 2 more\n    next: sudo storewarden scan --dry-run says what keeps" in said
    assert "PROBLEM (helper): connection refused\n    next: storewarden doctor says" in said
    assert "10 output, 2 lock since its start, 2.0 KiB" in said
    for row in (
        "suspects  4 ",
        "refused   5 ",
        "failed    6 ",
        "lost      count of the changes 1 ",
    ):
        assert f"\n  {row}" in said
    assert "all is well" not in said


@pytest.mark.parametrize("where", [*PLACES, "service"])
def test_every_known_problem_says_what_to_do_next(where: str) -> None:
    said = text(replace(WELL, problems={where: "x"}))
    assert f"PROBLEM ({where}): x\n    next: " in said
    assert "all is well" not in said


def test_a_service_that_does_not_run_says_how_to_start_it() -> None:
    for status in (None, WELL, BAD):
        first, *others = text(status, running=False).splitlines()
        assert first.startswith("NOT RUNNING")
        assert "sudo storewarden setup" in others[0]
        assert others[1].endswith("storewarden watch")
        assert "all is well" not in others
    assert "heard of it was on 20" in text(WELL, running=False)


def test_a_service_that_belongs_in_a_declaration_is_to_be_declared() -> None:
    lines = [*status_lines(None, NOW, running=False, set_up=DECLARE)]
    assert "to have it run from now on: services.storewarden.enable = true;" in lines[1]


def test_a_service_before_its_first_word_and_its_first_sweep_is_told() -> None:
    assert text(None) == "storewarden is running and has said nothing yet"
    assert "not yet; the first look" in text(replace(WELL, swept=None, sweeps=0))


def test_silence_is_noticed_as_a_problem_and_only_when_it_is_long() -> None:
    assert noticed(replace(WELL, updated=NOW - 900), NOW).problems == {}
    silent = noticed(replace(BAD, updated=NOW - 901), NOW)
    assert set(silent.problems) == {"helper", "service"}
    assert "has said nothing for 15 min" in silent.problems["service"]


@given(STATUSES)
def test_whatever_builders_chose_every_line_is_printable_ascii(status: ServiceStatus) -> None:
    for running in (True, False):
        for line in status_lines(replace(status, stuck_count=9), NOW, running=running):
            assert line.isascii()
            assert line.isprintable()


@given(STATUSES)
def test_the_json_has_every_member_of_the_status(status: ServiceStatus) -> None:
    # Not held against the schema: modes and kinds are any text here.
    document = json.loads(status_json(status, running=True))
    assert (document["version"], document["running"]) == (1, True)
    said: dict[str, Any] = document["status"]
    assert len(said) == len(fields(ServiceStatus))
    assert said["storeDir"] == status.store_dir
    assert said["sweepSeconds"] == status.sweep_seconds
    assert said["problems"] == status.problems
    assert [one["path"] for one in said["stuck"]] == [
        f"{status.store_dir}/{one.name}" for one in status.stuck
    ]


def test_a_doubtful_path_is_told_with_what_checks_and_what_replaces_it() -> None:
    one = Doubtful(JOB, 2, DRV, "out", JOB, NOW - 60)
    status = replace(WELL, doubtful=(one,), doubtful_count=2)
    text = "\n".join(status_lines(status, NOW, running=True))
    assert "DOUBTFUL: 2 valid paths, each built on the remains" in text
    assert f"nix-store --realise --check /nix/store/{DRV}" in text
    assert f"nix-store --delete /nix/store/{JOB} && nix-store --realise" in text
    assert "and 1 more" in text
    assert "all is well" not in text
    (told,) = checked(status_json(status, running=True), "status")["status"]["doubtful"]
    assert told["deriver"] == f"/nix/store/{DRV}"


def test_the_json_of_a_stuck_entry_is_as_documented() -> None:
    (one,) = checked(status_json(BAD, running=False), "status")["status"]["stuck"]
    assert one == {
        "path": "/nix/store/aaa-gone",
        "kind": "output",
        "since": NOW - 600,
        "reasons": ["a mount lies in it", "root has to unmount it"],
    }
    described = Path(__file__).parents[2].joinpath("docs/json.md").read_text(encoding="utf-8")
    for member in checked(status_json(BAD, running=True), "status")["status"]:
        assert f"`{member}`" in described.partition("storewarden status --json")[2], member


@pytest.fixture
def config(tmp_path: Path) -> str:
    place = tmp_path / "config.toml"
    place.write_text(f'runtime-dir = "{tmp_path}/run"\n')
    return str(place)


def asked(config: str) -> tuple[int, str, Any]:
    """Exit code and text, and the JSON of the same, which exits the same."""
    plain = run([*PROGRAM, "status", "--config", config])
    as_json = run([*PROGRAM, "status", "--json", "--config", config])
    assert (plain.returncode, plain.stderr) == (as_json.returncode, as_json.stderr)
    return plain.returncode, plain.stdout, report(as_json)


def test_the_exit_code_says_whether_it_runs_and_whether_all_is_well(
    tmp_path: Path, config: str
) -> None:
    runtime_dir, now = f"{tmp_path}/run", time.time()
    code, said, document = asked(config)
    assert (code, said[:11], document["running"], document["status"]) == (
        4,
        "NOT RUNNING",
        False,
        None,
    )
    with held(runtime_dir):
        code, said, document = asked(config)
        assert (code, document["running"], document["status"]) == (0, True, None)
        for status, wanted in (
            (replace(WELL, updated=now), 0),
            (replace(WELL, updated=now, stuck_count=1), 5),
            (replace(WELL, updated=now, problems={"nix": "no"}), 5),
            (replace(WELL, updated=now - 1000), 5),
        ):
            write_status(runtime_dir, status)
            code, said, document = asked(config)
            assert (code, "all is well" in said) == (wanted, wanted == 0)
            assert document["status"]["pid"] == 7
        assert set(document["status"]["problems"]) == {"service"}
    code, said, document = asked(config)
    assert (code, document["running"], document["status"]["pid"]) == (4, False, 7)
    assert "PROBLEM" not in said


def test_a_status_that_is_not_understood_ends_with_3_and_one_line(
    tmp_path: Path, config: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text("torn")
    done = run([*PROGRAM, "status", "--config", config])
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith("storewarden: error: cannot understand")


def test_a_configuration_that_is_named_and_absent_ends_with_2(tmp_path: Path) -> None:
    done = run([*PROGRAM, "status", "--config", f"{tmp_path}/absent"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot read the configuration" in done.stderr
