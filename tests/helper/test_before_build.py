# SPDX-License-Identifier: MIT
"""What a worker's hook runs before a build, as a program of its own: what it heeds, and its end.

This process is the worker, which waits for the hook's shell. On real Nix: `real/test_before_build`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helper.bench import log_of, names, records
from helper.child import in_child, mount, needs_root, take_own_mounts
from helper.trees import write
from stand_in import write_answering_nix
from storewarden import __file__ as package
from storewarden.prevention import place_in
from storewarden.store.paths import StorePath, output_lock
from storewarden.throwaway import ThrowawayStore
from sweeps import needs_lock_table

PROGRAM = place_in(os.path.dirname(os.path.realpath(package)))
ISOLATED = ("-I", "-S")
ALARMED = 128 + signal.SIGALRM
pytestmark = needs_lock_table


def about_to_build(place: ThrowawayStore, *outputs: str, path: str = "") -> StorePath:
    """A derivation with those outputs, floating if no path is given, whose locks are held here."""
    listed = ",".join(f'("{output}","{path}","r:sha256","")' for output in outputs)
    derivation = place.invent("x.drv")
    text = f'Derive([{listed}],[],[],"x","x",[],[("name","\udcff")])'  # no UTF-8, as Nix takes it
    Path(place.path(derivation.base_name)).write_bytes(text.encode(errors="surrogateescape"))
    place.register(derivation)
    for output in outputs:
        place.hold(place.path(output_lock(derivation, output)))
    return derivation


def base_of(place: ThrowawayStore) -> str:
    return place.state_dir.removesuffix("/nix/var/nix")


def hook(
    place: ThrowawayStore, *settings: str, python: tuple[str, ...] = ISOLATED, tries: int = 20
) -> tuple[int, str]:
    """How it ends and what it says, as the shell of Nix's hook runs it, with those settings.

    A machine that is very busy gives it too little time now and then, so it is tried again.
    """
    program, config = f"{base_of(place)}/nix-here", f"{base_of(place)}/config"
    write_answering_nix(program)
    ours = {
        "store-dir": place.store_dir.path,
        "state-dir": place.state_dir,
        "audit-log": log_of(place),
        "nix": program,
        "build-group": "no-such-group",
    }
    if not os.path.lexists(config):
        text = [*(f"{key} = {json.dumps(value)}" for key, value in ours.items()), *settings]
        write(config, "\n".join(text))
    for _ in range(tries):
        ended, said = started(place, config, place.path(place.invent("x.drv").base_name), python)
        if not had_no_time(ended, said):
            break
    if "where this program is, can be changed by others" in said:
        pytest.skip(f"it refuses to run from here: {said}")
    return ended, said


def had_no_time(ended: int, said: str) -> bool:
    return ended == ALARMED or "did not answer within" in said


def started(
    place: ThrowawayStore, config: str, drv: str = "", python: tuple[str, ...] = ISOLATED
) -> tuple[int, str]:
    """Once, and whatever comes of it."""
    words = [sys.executable, *python, PROGRAM, config, *filter(None, [drv])]
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *words]
    done = subprocess.run(
        shell, check=False, capture_output=True, text=True, timeout=30, cwd=base_of(place)
    )
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def stranded(place: ThrowawayStore, derivation: StorePath, output: str = "out") -> str:
    """What lies at the scratch path of that output, whose lock is held."""
    lock = place.path(output_lock(derivation, output))
    os.rename(lock, f"{lock}.aside")
    path = place.strand(derivation, output)
    os.rename(f"{lock}.aside", lock)
    return path.base_name


@needs_root
@pytest.mark.parametrize("settings", [(), ('min-age = "0"',)])
def test_what_lies_in_the_way_is_removed_and_told_in_one_line(
    settings: tuple[str, ...], place: ThrowawayStore
) -> None:
    derivation = about_to_build(place, "out", "dev")
    there = stranded(place, derivation, "dev")
    while had_no_time(*(told := hook(place, *settings, tries=1))):
        if there not in names(place):
            stranded(place, derivation, "dev")
    assert told == (0, f"storewarden: {there}: removed\n")
    assert there not in names(place)
    assert {record["name"] for record in records(place, "intent")} == {there}


@needs_root
def test_it_is_removed_where_the_store_is_mounted_read_only_as_well(place: ThrowawayStore) -> None:
    def in_own_mounts() -> tuple[str, int, str]:
        there = stranded(place, about_to_build(place, "out"))
        store = place.store_dir.path
        take_own_mounts()
        mount("--bind", store, store)
        mount("-o", "remount,ro,bind", store)
        return there, *hook(place)

    there, ended, said = in_child(in_own_mounts)
    assert (ended, there in names(place)) == (0, False), said


def test_an_output_that_has_its_path_by_now_is_not_looked_for(place: ThrowawayStore) -> None:
    derivation = about_to_build(place, "out", path=place.path(place.invent("x").base_name))
    there = stranded(place, derivation)
    assert hook(place) == (0, "")
    assert there in names(place)


def test_where_nothing_lies_there_or_nothing_is_built_nothing_more_is_looked_at(
    place: ThrowawayStore,
) -> None:
    derivation = about_to_build(place, "out", "dev")
    config = f"{base_of(place)}/config"
    write(config, "no settings at all")
    assert started(place, config, place.path(derivation.base_name)) == (0, "")
    stranded(place, derivation)
    assert started(place, config) == (0, "")


@pytest.mark.parametrize("text", [None, "Derive(...)", "\udcff"])
def test_a_derivation_that_cannot_be_read_is_told_in_one_line(
    text: str | None, place: ThrowawayStore
) -> None:
    drv = place.path(place.invent("x.drv").base_name)
    if text is not None:
        Path(drv).write_bytes(text.encode(errors="surrogateescape"))
    ended, said = started(place, "/nonexistent", drv)
    assert (ended, said.count("\n")) == (1, 1)
    assert said.startswith(f"storewarden: {os.path.basename(drv)}: what a build of it left cannot")


@pytest.mark.parametrize("setting", ['mode = "report"', 'kinds = ["lock", "chroot"]', "kinds = []"])
def test_settings_that_keep_outputs_keep_this_one(place: ThrowawayStore, setting: str) -> None:
    there = stranded(place, about_to_build(place, "out"))
    ended, said = hook(place, setting)
    assert (ended, "says to keep it" in said) == (1, True)
    assert there in names(place)
    assert not os.path.exists(log_of(place))


def test_one_output_that_is_younger_than_min_age_keeps_all(place: ThrowawayStore) -> None:
    derivation = about_to_build(place, "out", "dev")
    old = stranded(place, derivation)
    time.sleep(2.1)
    young = stranded(place, derivation, "dev")
    ended, said = hook(place, 'min-age = "2s"')
    assert (ended, "younger than min-age" in said) == (1, True)
    assert {old, young} <= names(place)


def test_settings_that_others_can_change_remove_nothing(place: ThrowawayStore) -> None:
    there = stranded(place, about_to_build(place, "out"))
    hook(place, "kinds = []")  # only to have the file made
    os.chmod(f"{base_of(place)}/config", 0o666)  # noqa: S103 - the point of the test
    ended, said = hook(place)
    assert ended == 1
    assert f"{base_of(place)}/config, which says what is done as root, can be changed" in said
    assert there in names(place)


def test_an_interpreter_that_takes_up_what_others_say_removes_nothing(
    place: ThrowawayStore,
) -> None:
    there = stranded(place, about_to_build(place, "out"))
    ended, said = hook(place, python=("-S",))
    assert (ended, "start it as: python -I" in said) == (1, True)
    assert there in names(place)


def test_whatever_hangs_the_kernel_ends_it_within_a_second(place: ThrowawayStore) -> None:
    there = stranded(place, about_to_build(place, "out"))
    os.mkfifo(f"{base_of(place)}/config")
    began = time.monotonic()
    ended, _ = hook(place, tries=1)
    assert ended == ALARMED
    assert time.monotonic() - began < 10, "it was waited for, on a machine that may be busy"
    assert there in names(place)
