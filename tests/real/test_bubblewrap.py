# SPDX-License-Identifier: MIT
"""In a bubblewrap sandbox: a read-only store, the daemon's socket, no variable, nobody else."""

import os
import shutil
import subprocess
from typing import Any

import pytest

from json_documents import checked
from programs import need
from real import namespace as ns
from real.builds import Build, let_finish, start_build, strand, stranded
from real.recipes import Recipe
from real.rig import Rig
from real.warden import AT_ONCE, finding, helper, socket_path, typed
from storewarden.readable import REMOVE, SET_UP

SOCKET = ("--bind", "/nix/var/nix/daemon-socket", "/nix/var/nix/daemon-socket")
STATE = ("--bind", "/nix/var/nix", "/nix/var/nix")
ALONE = ("--unshare-pid",)
AS_ROOT = ("--unshare-user", "--uid", "0", "--gid", "0")
OUTSIDE = "nix-daemon runs outside this container or sandbox"
NOBODY = "uid 65534 stands for every user whom this user namespace does not know"


def missing() -> str | None:
    """Why an ordinary user can make no sandbox here, in plain words, or None."""
    if shutil.which("bwrap") is None:
        return "there is no bwrap here (on Debian: apt-get install bubblewrap)"
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    tried = subprocess.run(
        [*as_nobody, "bwrap", "--ro-bind", "/", "/", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"bwrap is refused: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture(autouse=True)
def needs(rig: Rig) -> None:
    assert rig.user == "nobody"
    need("bubblewrap", missing())


def sandbox(rig: Rig, *more: str) -> list[str]:
    """The command that runs another one in a sandbox, with all that storewarden needs."""
    words = "--clearenv --tmpfs / --tmpfs /tmp --proc /proc --dev /dev"
    words += " --ro-bind /usr /usr --ro-bind /etc /etc"
    words += " --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64"
    words += f" --ro-bind /nix/store /nix/store --ro-bind {rig.base}/source {rig.base}/source"
    words += f" --setenv PATH /usr/bin --setenv PYTHONPATH {rig.namespace.sources}"
    return ["bwrap", *words.split(), *more, rig.python, "-m", "storewarden"]


def inside(
    rig: Rig, seen: tuple[str, ...], *words: str, user: str = "nobody"
) -> subprocess.CompletedProcess[str]:
    """`storewarden WORDS` in a sandbox that has been given those too."""
    return ns.run(rig.namespace, [*sandbox(rig, *seen), *words], user=user)


def scanned(rig: Rig, *seen: str, user: str = "nobody") -> dict[str, Any]:
    """What a sweep from in there reports; it must change nothing."""
    before = lying(rig)
    done = inside(rig, seen, "scan", "--dry-run", "--json", *AT_ONCE, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lying(rig) == before
    report: dict[str, Any] = checked(done.stdout, "scan")
    return report


def lying(rig: Rig) -> set[str]:
    """All names in the store."""
    return set(os.listdir(rig.store))


def verdicts(report: dict[str, Any], build: Build) -> set[str]:
    return {str(finding(report, path)["verdict"]) for path in build.entries}


@pytest.mark.parametrize("seen", [SOCKET, STATE], ids=["the socket", "the state directory"])
@pytest.mark.parametrize("who", [(), AS_ROOT], ids=["as himself", "as root in there"])
def test_debris_is_found_and_nothing_is_called_dead(
    rig: Rig, seen: tuple[str, ...], who: tuple[str, ...]
) -> None:
    build = stranded(rig, "job")
    live = start_build(rig, Recipe("live"))
    report = scanned(rig, *seen, *who, *ALONE)
    for one in (build, live):
        assert verdicts(report, one) == {"candidate"}
        [output] = one.outputs.values()
        assert finding(report, output)["owner"]["name"] is None
        assert finding(report, output)["deriver"] == one.drv
    notes = " ".join(report["notes"])
    assert OUTSIDE in notes
    assert NOBODY in notes
    assert ("only nix-daemon's socket is to be seen here" in notes) == (seen == SOCKET)
    let_finish(rig, live.recipe)
    assert live.client.process.wait(20) == 0, ns.read(live.log)


def test_where_processes_are_seen_what_lives_is_kept(rig: Rig) -> None:
    build = stranded(rig, "job")
    live = start_build(rig, Recipe("live"))
    report = scanned(rig, *SOCKET)
    assert verdicts(report, live) == {"keep"}
    assert verdicts(report, build) == {"candidate"}
    assert OUTSIDE not in " ".join(report["notes"])


@pytest.mark.parametrize("who", [(), AS_ROOT], ids=["as himself", "as root in there"])
def test_to_remove_it_says_where_to_run_it(rig: Rig, who: tuple[str, ...]) -> None:
    build = stranded(rig, "job")
    before, as_whom = lying(rig), "root" if who else "nobody"
    done = inside(rig, (*SOCKET, *who, *ALONE), "scan", "--yes", *AT_ONCE)
    assert done.returncode == 4, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        f"to remove without it, as root and outside of any sandbox: {typed(rig, REMOVE, as_whom)}"
    )
    assert lying(rig) == before
    with helper(rig, "nobody"):
        seen = (*SOCKET, *ALONE, "--bind", socket_path(rig), "/run/storewarden/helper.sock")
        done = inside(rig, seen, "scan", "--yes", *AT_ONCE)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not any(os.path.lexists(rig.outside(path)) for path in build.entries)


@pytest.mark.parametrize("who", [(), AS_ROOT], ids=["as itself", "in a user namespace"])
def test_the_real_root_removes_nothing_from_in_there(rig: Rig, who: tuple[str, ...]) -> None:
    build = stranded(rig, "job")
    live = start_build(rig, Recipe("live"))
    before = lying(rig)
    seen = (*STATE, *who, *ALONE, "--dir", "/var/log")
    done = inside(rig, seen, "scan", "--yes", *AT_ONCE, user="root")
    assert done.returncode == (0 if who else 3), done.stdout + done.stderr
    assert OUTSIDE in done.stderr
    assert "removable" not in done.stdout
    assert lying(rig) == before
    let_finish(rig, live.recipe)
    assert live.client.process.wait(20) == 0, ns.read(live.log)
    assert all(os.path.lexists(rig.outside(path)) for path in build.entries)


def test_without_the_database_root_removes_nothing_though_it_sees_all_else(rig: Rig) -> None:
    build = stranded(rig, "job")
    before = lying(rig)
    done = inside(rig, (*SOCKET, "--dir", "/var/log"), "scan", "--yes", *AT_ONCE, user="root")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "only nix-daemon's socket is to be seen here" in done.stderr.splitlines()[-1]
    assert lying(rig) == before
    assert build.entries <= {f"/nix/store/{name}" for name in before}


def test_the_service_reports_and_says_what_it_cannot_see(rig: Rig) -> None:
    log = f"{rig.base}/logs/in-there"
    place = f"{rig.base}/logs/config.toml"
    with open(place, "w", encoding="utf-8") as file:
        file.write('mode = "report"\nruntime-dir = "/tmp/watch"\n')
    seen = (*SOCKET, *ALONE, "--die-with-parent", "--ro-bind", place, place)
    words = [*sandbox(rig, *seen), "watch", "--config", place]
    watcher = ns.start(rig.namespace, words, log=log, user="nobody")
    ns.wait_until(lambda: '"watching"' in ns.read(log), "the service")
    assert OUTSIDE in ns.read(log)
    build = start_build(rig, Recipe("job"))
    strand(rig, build)
    [output] = build.outputs.values()
    found = f'"path": "{output}", "kind": "output"'
    ns.wait_until(lambda: found in ns.read(log), "the find", 10)
    assert watcher.process.poll() is None
    assert all(os.path.lexists(rig.outside(path)) for path in build.entries)


def test_the_service_that_is_to_repair_says_that_there_is_no_helper(rig: Rig) -> None:
    place = f"{rig.base}/logs/config.toml"
    with open(place, "w", encoding="utf-8") as file:
        file.write('runtime-dir = "/tmp/watch"\n')
    seen = (*SOCKET, *ALONE, "--ro-bind", place, place)
    done = inside(rig, seen, "watch", "--config", place)
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"{typed(rig, SET_UP)}; or only report" in done.stderr
