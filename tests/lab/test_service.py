# SPDX-License-Identifier: MIT
"""The service as `setup` installs it: debris goes, with nobody touching anything."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from lab.interrupts import Outage, interrupt
from lab.jobs import FINISH, WITNESS, log_of, start, wait_for_builders, witness
from lab.machine import Machine, control, power_cut
from lab.service import (
    CONFIG,
    HELPER,
    MIN_AGE,
    SOCKET,
    WATCHER,
    journal,
    run,
    wait_until_gone,
    write_config,
)
from real import namespace as ns
from real.builds import (
    Interrupt,
    builder_lives,
    interrupted,
    let_finish,
    start_build,
    stranded,
)
from real.recipes import Recipe
from real.rig import Rig, unregistered
from real.story import assert_builds_exactly_its_own_files

WAYS = [*Interrupt, *Outage]


def status(rig: Rig) -> dict[str, Any]:
    text = ns.read(f"/proc/{rig.namespace.first}/root/run/storewarden/watch/status.json")
    document: dict[str, Any] = json.loads(text)
    return document


def problems(rig: Rig) -> dict[str, str]:
    found: dict[str, str] = status(rig)["problems"]
    return found


def restarts(rig: Rig) -> int:
    return int(control(rig, "show", "--property=NRestarts", "--value", WATCHER))


def assert_the_audit_log_is_whole(rig: Rig) -> None:
    verified = run(rig, ["storewarden", "audit", "verify"])
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("how", WAYS, ids=lambda how: how.value)
def test_what_is_stranded_is_gone_before_the_retry(
    service: Machine, how: Interrupt | Outage
) -> None:
    build = start_build(service.rig, Recipe("job", outputs=("out", "dev")))
    live = start_build(service.rig, Recipe("live"))
    rig = interrupt(service, build, how)
    if how is Interrupt.SIGKILL_WORKER and builder_lives(rig, build):
        time.sleep(MIN_AGE + 2)
        assert unregistered(rig) >= build.entries, "its builder lives on"
        let_finish(rig, build.recipe)
        ns.wait_until(lambda: not builder_lives(rig, build), "the end of the builder")
    # A machine that has to come up first takes its time for that.
    wait_until_gone(rig, build)
    if how not in set(Outage):  # those end every build
        let_finish(rig, live.recipe)
        assert live.client.process.wait(20) == 0, ns.read(live.log)
    assert_builds_exactly_its_own_files(rig, build)
    ns.wait_until(lambda: unregistered(rig) == set(), "all of it to go")
    assert_the_audit_log_is_whole(rig)


def test_a_watcher_that_hangs_is_noticed_and_restarted(service: Machine) -> None:
    rig = service.rig
    place = f"/proc/{rig.namespace.first}/root/run/systemd/system/{WATCHER}.d"
    os.makedirs(place)
    Path(f"{place}/quick.conf").write_text("[Service]\nWatchdogSec=3\nRestartSec=0\n")
    control(rig, "daemon-reload")
    control(rig, "restart", WATCHER)
    assert control(rig, "show", "--property=WatchdogUSec", "--value", WATCHER).strip() == "3s"
    time.sleep(7)
    assert restarts(rig) == 0, "it was restarted though it was well"
    control(rig, "kill", "--signal=STOP", WATCHER)
    build = stranded(rig, "job")
    ns.wait_until(lambda: restarts(rig) == 1, "the restart", 20)
    wait_until_gone(rig, build, 10)
    shutil.rmtree(place)
    control(rig, "daemon-reload")


def test_a_watcher_that_was_killed_comes_back_and_goes_on(service: Machine) -> None:
    rig = service.rig
    control(rig, "kill", "--signal=KILL", WATCHER)
    build = interrupted(rig, "job")
    wait_until_gone(rig, build, 20)
    assert restarts(rig) == 1


def test_a_helper_that_is_killed_at_work_is_followed_by_one_that_ends_it(service: Machine) -> None:
    rig = service.rig
    build = start_build(rig, Recipe("job"))
    fill = f"i=0; while [ $i -lt 30000 ]; do : > {build.outputs['out']}/$i; i=$((i+1)); done"
    assert (
        ns.run(rig.namespace, ["sh", "-c", fill], user=rig.build_users[build.uid]).returncode == 0
    )
    interrupt(service, build, Interrupt.SIGINT_CLIENT)

    def private() -> list[str]:
        return [name for name in os.listdir(rig.store) if name.startswith("tmp-storewarden-")]

    ns.wait_until(lambda: bool(private()), "the helper to be at work")
    control(rig, "kill", "--signal=KILL", HELPER)
    wait_until_gone(rig, build, 20)
    ns.wait_until(lambda: not private(), f"the rest to be removed:\n{journal(rig)}", 60)
    ns.wait_until(lambda: problems(rig) == {}, "the end of the problem")
    assert_the_audit_log_is_whole(rig)


def test_restarts_of_the_daemon_disturb_nothing(service: Machine) -> None:
    rig = service.rig
    live = start_build(rig, Recipe("live"))
    build = interrupted(rig, "job")
    for _ in range(3):  # systemd allows five starts in ten seconds
        control(rig, "restart", "nix-daemon.service")
        time.sleep(0.3)
    wait_until_gone(rig, build, 20)
    if live.client.process.poll() is None:  # some units end the builds as well
        let_finish(rig, live.recipe)
        assert live.client.process.wait(20) == 0, ns.read(live.log)
    ns.wait_until(lambda: unregistered(rig) == set(), "all of it to go")


def test_after_a_reboot_it_runs_and_goes_on(service: Machine) -> None:
    build = start_build(service.rig, Recipe("job"))
    rig = power_cut(service)
    wait_until_gone(rig, build, 30)
    assert control(rig, "is-active", WATCHER, SOCKET).split() == ["active", "active"]
    assert_builds_exactly_its_own_files(rig, build)
    assert_the_audit_log_is_whole(rig)


def test_reloads_under_load_disturb_no_build(service: Machine) -> None:
    rig = service.rig
    names = [f"loaded-{number}" for number in range(10)]
    client = start(rig, names, WITNESS + "sleep 6\n" + FINISH, "loaded")
    wait_for_builders(rig, names, "loaded", client)
    modes = ("report", "repair")
    for number in range(20):
        write_config(rig, f'mode = "{modes[number % 2]}"\nmin-age = "{number % 3}s"\n')
        control(rig, "reload", WATCHER)
        time.sleep(0.2)
    assert client.process.wait(60) == 0, log_of(rig, "loaded")
    said = [witness(log_of(rig, "loaded"), name) for name in names]
    assert all(one and one.saw_at_end not in {None, "nothing"} for one in said)
    assert restarts(rig) == 0
    ns.wait_until(lambda: status(rig)["mode"] == "repair", "the last configuration")
    wait_until_gone(rig, interrupted(rig, "job"))


def test_a_wrong_configuration_has_nothing_removed_and_stops_a_new_start(service: Machine) -> None:
    rig = service.rig
    before = ns.read(f"{rig.root}{CONFIG}")
    write_config(rig, before + '\nmin-aeg = "5s"\n')
    control(rig, "reload", WATCHER)
    ns.wait_until(lambda: "configuration" in problems(rig), "the complaint")
    assert "unknown key 'min-aeg'; did you mean 'min-age'?" in problems(rig)["configuration"]
    dead = stranded(rig, "job")
    ns.wait_until(
        lambda: "did you mean 'min-age'?" in problems(rig).get("helper", ""), "the helper"
    )
    assert any(os.path.lexists(rig.outside(path)) for path in dead.entries)
    started = ns.run(rig.namespace, ["systemctl", "restart", WATCHER])
    assert started.returncode != 0
    time.sleep(6)
    assert control(rig, "show", "--property=NRestarts", "--value", WATCHER).strip() == "0"
    assert "did you mean 'min-age'?" in journal(rig)
    write_config(rig, before)
    control(rig, "restart", WATCHER)
    wait_until_gone(rig, dead)


@pytest.mark.parametrize("way", ["full", "read-only"])
def test_without_a_log_nothing_is_removed_until_there_is_one(service: Machine, way: str) -> None:
    rig = service.rig
    log = "/var/log/storewarden"
    end_helper(rig)
    mounts = [["mount", "-t", "tmpfs", "-o", "size=16k,mode=0750", "tmpfs", log]]
    if way == "full":
        mounts.append(["sh", "-c", f"cat /dev/zero > {log}/junk; test -s {log}/junk"])
    else:
        mounts.append(["mount", "-o", "remount,ro", log])
    for words in mounts:
        done = ns.run(rig.namespace, words)
        assert done.returncode == 0, done.stderr
    try:
        build = stranded(rig, "job")
        ns.wait_until(lambda: "helper" in problems(rig), f"the complaint:\n{journal(rig)}")
        ns.wait_until(lambda: status(rig)["stuck_count"] > 0, f"what is stuck:\n{journal(rig)}")
        assert unregistered(rig) == build.entries
    finally:
        end_helper(rig)
        assert ns.run(rig.namespace, ["umount", log]).returncode == 0
        # One that the watcher has asked meanwhile sees the old mount to its end.
        end_helper(rig)
    wait_until_gone(rig, build, 60)
    ns.wait_until(lambda: problems(rig) == {}, "the end of the complaint", 60)


def end_helper(rig: Rig) -> None:
    """Stop it; where the watcher asks just then its socket starts it, which cancels the stop."""
    stop = ["systemctl", "stop", HELPER]
    ns.wait_until(lambda: ns.run(rig.namespace, stop).returncode == 0, "the end of the helper")


def test_a_file_left_where_the_socket_belongs_is_no_obstacle(service: Machine) -> None:
    rig = service.rig
    control(rig, "stop", WATCHER, SOCKET, HELPER)
    left = ["sh", "-c", "mkdir -p /run/storewarden && echo left > /run/storewarden/helper.sock"]
    assert ns.run(rig.namespace, left).returncode == 0
    control(rig, "start", SOCKET, WATCHER)
    wait_until_gone(rig, interrupted(rig, "job"))


def test_a_second_one_by_hand_is_refused(service: Machine) -> None:
    rig = service.rig
    second = run(rig, ["storewarden", "watch"])
    assert second.returncode == 4
    assert "already watches, as process" in second.stderr
    wait_until_gone(rig, interrupted(rig, "job"))


def test_after_a_flood_that_was_lost_count_of_all_is_found(service: Machine) -> None:
    rig = service.rig
    control(rig, "kill", "--signal=STOP", WATCHER)
    flood = "import os; os.chdir('/nix/store')\n"
    flood += "for i in range(30000): os.close(os.open(str(i), os.O_CREAT)); os.unlink(str(i))"
    done = ns.run(rig.namespace, ["python3", "-c", flood], seconds=120)
    assert done.returncode == 0, done.stderr
    builds = [stranded(rig, f"job-{number}") for number in range(3)]
    control(rig, "kill", "--signal=CONT", WATCHER)
    for build in builds:
        wait_until_gone(rig, build, 15)
    assert restarts(rig) == 0, "the machine was so slow that it was taken to hang"
    ns.wait_until(lambda: status(rig)["overflows"] >= 1, "the count")
