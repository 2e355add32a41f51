# SPDX-License-Identifier: MIT
"""In containers without systemd: the service as root in one process, beside any first process."""

import os
import re
import time
from collections.abc import Iterator
from signal import SIGINT, SIGKILL, SIGTERM, Signals
from subprocess import CompletedProcess

import pytest

from json_documents import checked
from programs import need
from real import namespace as ns
from real.builds import Build, Interrupt, let_finish, retry, start_build, strand
from real.container import container, still_there
from real.recipes import Recipe
from real.rig import Rig, missing
from real.warden import AT_ONCE, command, finding, scan, warden
from real.watching import service, start_service

Result = CompletedProcess[str]
_WATCH = "{base}/source/.venv/bin/python -m storewarden watch"
# Nix makes its directories and its database badly where two of it do so at once.
_MADE = "until [ -e /nix/var/nix/daemon-socket/socket ]; do sleep 0.1; done"
AS_FIRST = ("sh", "-ec", f"exec 2>{{base}}/logs/first; {_MADE}; exec {_WATCH}")


@pytest.fixture(autouse=True, scope="module")
def needs() -> None:
    need("a container", missing())


@pytest.fixture(scope="module")
def box(needs: None) -> Iterator[Rig]:  # noqa: ARG001 - it comes first
    """One container for the tests that only look at it from places of their own."""
    with container() as rig:
        yield rig


def named(text: str) -> str:
    """The same as a name that Nix takes."""
    return re.sub("[^a-z]+", "-", text)


def wait_until_gone(rig: Rig, build: Build) -> None:
    ns.wait_until(lambda: not still_there(rig, build.entries), "the removal")


def orphaned(rig: Rig) -> Build:
    """A build whose worker and then builder were killed: a zombie, if its parent never waits."""
    build = start_build(rig, Recipe("job"))
    strand(rig, build, Interrupt.SIGKILL_WORKER)
    ns.kill(rig.namespace, SIGKILL, build.builder)
    return build


def zombies(rig: Rig) -> set[int]:
    """The users who have one there."""
    listed = ns.run(rig.namespace, ["ps", "-e", "-o", "stat=,uid="]).stdout.splitlines()
    return {int(line.split()[1]) for line in listed if line.startswith("Z")}


@pytest.mark.parametrize("builds", ["daemon", "root"])
def test_debris_goes_and_a_live_build_runs_through(builds: str) -> None:
    with container(builds=builds) as rig:
        live = start_build(rig, Recipe("live"))
        with service(rig) as watcher:
            build = orphaned(rig)
            wait_until_gone(rig, build)
            assert build.uid in zombies(rig), "its first process waits for children"
            assert watcher.status["wakes"] == "polling"
            assert watcher.status["problems"] == {}
        again = retry(rig, build.recipe, not_uid=build.uid)
        assert again.returncode == 0, again.stderr
        let_finish(rig, live.recipe)
        assert live.client.process.wait(20) == 0, ns.read(live.log)
        assert scan(rig, "--dry-run")["findings"] == []


def test_without_build_users_what_root_strands_is_reported_and_it_is_said_why() -> None:
    with container(builds="alone") as rig, service(rig) as watcher:
        build = start_build(rig, Recipe("job"))
        strand(rig, build)
        ns.wait_until(lambda: "output-of-root" in watcher.status["found"], "the find")
        time.sleep(3)
        assert still_there(rig, build.entries) == build.entries
        assert watcher.status["problems"] == {}
        assert "there are no build users here" in watcher.said
        done = warden(rig, "scan", "--yes", *AT_ONCE)
        assert done.returncode == 0, done.stderr
        assert "there are no build users here" in done.stderr
        assert still_there(rig, build.entries) == build.entries


@pytest.mark.parametrize("end", [SIGTERM, SIGINT])
def test_as_the_first_process_it_works_and_ends_when_it_is_told(end: Signals) -> None:
    with container(first=AS_FIRST) as rig:
        log = f"{rig.base}/logs/first"
        ns.wait_until(lambda: '"watching"' in ns.read(log), "the service")
        build = orphaned(rig)
        wait_until_gone(rig, build)
        os.kill(rig.namespace.first, end)
        assert rig.namespace.holder.wait(10) == 0, ns.read(log)
        assert '"ended"' in ns.read(log)


def test_one_service_a_container_and_after_kill_9_the_next_one_goes_on() -> None:
    with container() as rig:
        first = start_service(rig)
        second = start_service(rig)
        assert second.child.process.wait(10) == 4
        assert f"already watches, as process {first.child.pid}" in second.said
        build = start_build(rig, Recipe("job"))
        ns.kill(rig.namespace, SIGKILL, first.child.pid)
        strand(rig, build)
        with service(rig):
            wait_until_gone(rig, build)


def test_ctrl_c_ends_it() -> None:
    with container() as rig:
        watcher = start_service(rig)
        ns.kill(rig.namespace, SIGINT, watcher.child.pid)
        assert watcher.child.process.wait(10) == 0, watcher.said


def behind(rig: Rig, mounting: str, *words: str, user: str = "root") -> Result:
    """`storewarden WORDS --min-age 0` where that has been done to the mounts, for it alone."""
    program = [*ns.as_user(rig.namespace, user), *command(rig, *words, *AT_ONCE)]
    return ns.run(rig.namespace, [*among_own_mounts(mounting), *program])


def among_own_mounts(mounting: str) -> list[str]:
    """The command that runs another one where that has been done to the mounts, for it alone."""
    return ["unshare", "--mount", "sh", "-ec", f'{mounting}\nexec "$@"', "sh"]


SETTLED = {
    "other users' processes are hidden": "mount -t proc -o hidepid=2 proc /proc",
    "nothing but processes": "mount -t proc -o subset=pid proc /proc",
    "an empty table of locks": "mount --bind /dev/null /proc/locks",
}
"""What root does without: it takes the locks, and sees what is hidden from others."""
UNSETTLED = {
    "process 1 is hidden": (5, "mount -t tmpfs none /proc/1", "could not all be seen"),
    "no /proc": (3, "umount -l /proc", "the mounts of this machine cannot be read"),
}


@pytest.mark.parametrize("how", SETTLED)
def test_behind_a_thin_proc_root_removes_what_is_dead_alone(box: Rig, how: str) -> None:
    live, build = (
        start_build(box, Recipe(named(f"live-{how}"))),
        start_build(box, Recipe(named(how))),
    )
    strand(box, build)
    done = behind(box, SETTLED[how], "scan", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert still_there(box, build.entries) == set()
    assert still_there(box, live.entries) == live.entries
    let_finish(box, live.recipe)
    assert live.client.process.wait(20) == 0, ns.read(live.log)


@pytest.mark.parametrize("how", UNSETTLED)
def test_where_too_much_is_hidden_nothing_is_removed_and_it_is_said_why(box: Rig, how: str) -> None:
    code, mounting, reason = UNSETTLED[how]
    build = start_build(box, Recipe(named(how)))
    strand(box, build)
    done = behind(box, mounting, "scan", "--yes")
    assert done.returncode == code, done.stdout + done.stderr
    assert reason in done.stdout + done.stderr
    [output] = build.outputs.values()
    assert output in still_there(box, build.entries)


@pytest.mark.parametrize(
    "mounting",
    ["mount -t proc -o hidepid=2 proc /proc", "mount -t proc -o subset=pid proc /proc"]
    + [mounting for _, mounting, _ in UNSETTLED.values()],
)
def test_an_ordinary_user_calls_nothing_dead_behind_a_thin_proc(box: Rig, mounting: str) -> None:
    build = start_build(box, Recipe(named(f"seen-{mounting}")))
    strand(box, build)
    done = behind(box, mounting, "scan", "--json", user="nobody")
    assert done.returncode == 0, done.stderr
    [output] = build.outputs.values()
    assert finding(checked(done.stdout, "scan"), output)["verdict"] == "candidate"


def test_without_proc_the_service_says_so_and_goes_on_once_it_is_there(box: Rig) -> None:
    build = start_build(box, Recipe("without-proc"))
    strand(box, build)
    with service(box, through=among_own_mounts("umount -l /proc")) as watcher:
        ns.wait_until(lambda: "helper" in watcher.status["problems"], "the complaint")
        assert "cannot be read" in watcher.status["problems"]["helper"]
        assert "mount -t proc proc /proc" in watcher.said
        time.sleep(3)
        assert still_there(box, build.entries) == build.entries
    with service(box):
        wait_until_gone(box, build)


WITHOUT_INOTIFY = """
import ctypes, os, sys
ready, unshared = os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{os.getppid()}/{kind}_map", "w") as file:
            file.write("0 0 65536")
    os._exit(0)
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
os.write(unshared, b"!")
os.wait()
with open("/proc/sys/user/max_inotify_instances", "w") as file:
    file.write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a command as root of a user namespace, with the same users, that has no inotify."""


def test_where_inotify_is_not_to_be_had_it_polls_and_says_so(rig: Rig) -> None:
    with service(rig, through=[rig.python, "-c", WITHOUT_INOTIFY]) as watcher:
        build = start_build(rig, Recipe("job"))
        strand(rig, build)
        wait_until_gone(rig, build)
        ns.wait_until(lambda: watcher.status["wakes"] == "polling", "the status")
        assert "inotify is not to be had" in watcher.status["problems"]["wakes"]
