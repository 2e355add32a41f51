# SPDX-License-Identifier: MIT
"""`storewarden status`: for a tired person, as JSON, and by exit code."""

import json
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from command import PROGRAM, report, run
from daemon.test_status import STATUSES
from json_documents import checked
from storewarden import __version__
from storewarden.cli.status import noticed, status_json, status_lines
from storewarden.daemon.starting import Starting, starting
from storewarden.daemon.status import (
    PLACES,
    Doubtful,
    Removed,
    ServiceStatus,
    Stuck,
    held,
    write_status,
)
from storewarden.readable import DECLARE, SET_UP, WATCH

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
    program_version=__version__,
)
NOT_SET_UP = Starting(SET_UP)
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


def text(
    status: ServiceStatus | None,
    most: int | None = None,
    *,
    running: bool = True,
    starting: Starting = NOT_SET_UP,
) -> str:
    return "\n".join(status_lines(status, NOW, most=most, running=running, starting=starting))


def test_a_service_that_does_well_is_told_in_a_few_lines() -> None:
    said = text(WELL)
    assert said.startswith("storewarden is running since 20")
    assert "(3 h ago)" in said.splitlines()[0]
    assert "repair: what is proved dead is removed" in said
    assert "/nix/store, told of changes by inotify" in said
    assert "41 times, the last on 20" in said
    assert "(60 s ago), in 0.25 s" in said
    assert "  found     2 outputs in that sweep" in said
    assert "  removed   nothing since its start" in said
    assert said.endswith("\nall is well")
    assert len(said.splitlines()) == 8


def test_what_needs_somebody_is_told_with_its_reasons_and_what_to_do_next() -> None:
    said = text(BAD)
    assert "STUCK: 3 should go and could not be removed\n  /nix/store/aaa-gone\n" in said
    assert "(10 min ago)\n    a mount lies in it\n    root has to unmount it\n" in said
    assert "  ... 2 more\n    next: sudo storewarden scan --dry-run says what keeps" in said
    assert "PROBLEM (helper): connection refused\n    next: storewarden doctor says" in said
    assert "10 outputs, 2 lock files since its start, 2.0 KiB" in said
    for row in (
        "watched   4 entries, young or claimed",
        "refused   5 ",
        "failed    6 ",
        "lost      count of the changes 1 ",
    ):
        assert f"\n  {row}" in said
    assert "all is well" not in said


def test_of_many_that_are_stuck_ten_are_shown_and_how_to_see_the_rest() -> None:
    many = tuple(replace(STUCK, name=f"entry-{number}") for number in range(60))
    stuck = replace(WELL, stuck=many, stuck_count=116)
    lines = text(stuck, 10).splitlines()
    assert len([line for line in lines if "/nix/store/entry-" in line]) == 10
    assert "  ... 106 more: --all" in lines
    every = text(stuck).splitlines()
    assert len([line for line in every if "/nix/store/entry-" in line]) == 60
    assert "  ... 56 more" in every


def test_what_was_removed_last_is_told_newest_first() -> None:
    gone = tuple(Removed(f"gone-{n}", "output", NOW - 60 * n, 2, 1024) for n in range(9, 0, -1))
    lines = text(replace(WELL, recent=gone), 10).splitlines()
    told = [line for line in lines if "  removed gone-" in line]
    assert [line.partition("gone-")[2] for line in told] == [
        f"{n} (2 files, 1.0 KiB)" for n in range(1, 6)
    ]
    every = text(replace(WELL, recent=gone)).splitlines()
    assert len([line for line in every if "gone-" in line]) == 9
    document = checked(status_json(replace(WELL, recent=gone), running=True), "status")
    (one, *_) = document["status"]["recent"]
    assert (one["path"], one["time"]) == ("/nix/store/gone-9", NOW - 540)


def test_who_follows_a_service_is_shown_each_removal_until_it_ends(
    tmp_path: Path, config: str
) -> None:
    runtime_dir, now = f"{tmp_path}/run", time.time()
    gone = (Removed("gone-1", "output", now, 2, 1024),)
    with held(runtime_dir):
        write_status(runtime_dir, replace(WELL, updated=now))
        command = [*PROGRAM, "status", "--follow", "--config", config]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            while child.stdout.readline() != "all is well\n":
                assert child.poll() is None
            write_status(runtime_dir, replace(WELL, updated=now, recent=gone))
            assert "removed gone-1 (2 files, 1.0 KiB)" in child.stdout.readline()
            child.terminate()


@pytest.mark.parametrize("where", [*PLACES, "service"])
def test_every_known_problem_says_what_to_do_next(where: str) -> None:
    said = text(replace(WELL, problems={where: "x"}))
    assert f"PROBLEM ({where}): x\n    next: " in said
    assert "all is well" not in said


def test_a_service_that_does_not_run_says_how_to_start_it() -> None:
    for status in (None, WELL, BAD):
        first, *others = text(status, running=False).splitlines()
        assert first.startswith("NOT RUNNING")
        assert others[0] == "  to have it run from now on: sudo storewarden setup"
        assert "all is well" not in others
    assert "heard of it was on 20" in text(WELL, running=False)
    assert "it ended when it was told to, on 20" in text(replace(WELL, ended=True), running=False)


def test_a_service_that_was_set_up_and_stopped_is_started_and_its_log_told(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text(f"[Service]\nExecStart={sys.executable} -I -m storewarden\n")
    here = starting("", darwin=False, systemd=True, units=[f"{tmp_path}/none", f"{tmp_path}/unit"])
    assert text(WELL, running=False, starting=here).splitlines()[1:3] == [
        "  to start it:                sudo systemctl start storewarden",
        "  why it ended:               sudo journalctl -u storewarden -n 30",
    ]


def test_a_job_that_does_not_run_is_started_by_launchd(tmp_path: Path) -> None:
    job = tmp_path / "org.storewarden.watch.plist"
    job.write_text(f"<string>exec</string>\n<string>{sys.executable}</string>\n")
    here = starting("", darwin=True, systemd=False, units=[str(job)])
    assert "launchctl kickstart" in text(None, running=False, starting=here)
    job.write_text("<string>/opt/gone/bin/python3.11</string>\n")
    here = starting("", darwin=True, systemd=False, units=[str(job)])
    assert "its interpreter /opt/gone/bin/python3.11 is gone" in here.hindered


def test_a_service_whose_interpreter_is_gone_is_set_up_anew(tmp_path: Path) -> None:
    (tmp_path / "unit").write_text("[Service]\nExecStart=/opt/gone/bin/python -I -m storewarden\n")
    here = starting("", darwin=False, systemd=True, units=[f"{tmp_path}/unit"])
    assert text(None, running=False, starting=here).splitlines()[1:] == [
        "  it cannot start: its interpreter /opt/gone/bin/python is gone",
        "  to set it up anew:          sudo storewarden setup",
    ]


def test_where_nothing_could_start_it_it_is_run_by_hand() -> None:
    here = starting("", darwin=False, systemd=False, units=[__file__])
    assert here == Starting(WATCH)
    said = text(None, running=False, starting=here).splitlines()
    assert said[1:] == ["  to have it run here, as root: storewarden watch"]


def test_a_service_that_belongs_in_a_declaration_is_to_be_declared() -> None:
    here = starting("NixOS", darwin=False, systemd=True, units=[])
    assert here == Starting(DECLARE)
    said = text(None, running=False, starting=here)
    assert "to have it run from now on: services.storewarden.enable = true;" in said


def test_a_service_of_another_version_is_told_with_what_renews_it() -> None:
    for version, name in (("", "an older storewarden"), ("0.0.9", "storewarden 0.0.9")):
        said = text(replace(WELL, program_version=version))
        assert f"\nnote: the service runs {name}, and this program is {__version__}\n" in said
        assert "    to have it run this one, too: sudo storewarden setup\n" in said
        assert said.endswith("all is well")


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
        for line in status_lines(
            replace(status, stuck_count=9), NOW, running=running, starting=NOT_SET_UP
        ):
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
    said = text(status)
    assert "DOUBTFUL: 2 valid paths, each built on the remains" in said
    assert f"nix-store --realise --check /nix/store/{DRV}" in said
    assert f"nix-store --delete /nix/store/{JOB} && nix-store --realise" in said
    assert "  ... 1 more\n" in said
    assert "all is well" not in said
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
