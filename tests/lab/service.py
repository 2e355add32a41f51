# SPDX-License-Identifier: MIT
"""The service set up in a booted root by an ordinary user's storewarden, and taken back."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from delivery import deliver
from lab.machine import Machine, control
from real import namespace as ns
from real.builds import Build
from real.rig import Rig

WATCHER, SOCKET, HELPER = (
    "storewarden.service",
    "storewarden-helper.socket",
    "storewarden-helper.service",
)
CONFIG = "/etc/storewarden/config.toml"
MIN_AGE = 2.0
SOON = 30.0
"""Enough for a busy machine, and far less than the next sweep is away."""
LOGS = "/var/log/storewarden"
ONLY_TWO = f"{(1 << 1) | (1 << 3):016x}"
"""CAP_DAC_OVERRIDE and CAP_FOWNER, as /proc shows them."""
Done = CompletedProcess[str]
_OF_ACCOUNTS = ("passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock", "subuid-", "subgid-")


@contextmanager
def delivered(machine: Machine) -> Iterator[str]:
    """The interpreter of a user's own storewarden; whatever was set up with it is gone after."""
    place = f"{machine.base}/home/{machine.rig.user}/storewarden"
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run(["cp", "-a", _compiled(machine), place], check=True)
    python = f"{place}/bin/python"
    try:
        yield python
    finally:
        rig = machine.rig  # of another boot, if a test has cut its power
        gone = run(rig, [python, "-m", "storewarden", "setup", "--uninstall"])
        assert gone.returncode == 0, gone.stdout + gone.stderr
        assert not os.path.lexists(f"{rig.root}/opt/storewarden"), gone.stdout + gone.stderr
        for left in (place, f"{rig.root}/etc/storewarden", f"{rig.root}/var/log/storewarden"):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def installed(machine: Machine) -> Iterator[str]:
    """While the service is set up, whatever becomes of the machine meanwhile; its configuration."""
    with delivered(machine) as python:
        setup(machine.rig, python)
        yield ns.read(f"{machine.rig.root}{CONFIG}")


@contextmanager
def running(machine: Machine, configuration: str) -> Iterator[None]:
    """While what is set up runs with that configuration, having begun with no log."""
    write_config(machine.rig, configuration)
    control(machine.rig, "stop", WATCHER, SOCKET, HELPER)
    for log in Path(f"{machine.rig.root}{LOGS}").iterdir():
        log.unlink()
    control(machine.rig, "reset-failed")
    control(machine.rig, "start", SOCKET, WATCHER)
    try:
        yield
    finally:
        control(machine.rig, "stop", WATCHER, SOCKET, HELPER)


def write_config(rig: Rig, text: str) -> None:
    Path(f"{rig.root}{CONFIG}").write_text(text, encoding="utf-8")


def wait_until_gone(rig: Rig, build: Build, seconds: float = SOON) -> None:
    """Return when nothing of what that build left is there; fail if it is not gone in time."""
    began = time.monotonic()
    while any(os.path.lexists(rig.outside(path)) for path in build.entries):
        late = time.monotonic() - began - seconds
        assert late < 0, f"not removed within {seconds} s:\n{journal(rig)}"
        time.sleep(0.02)


def audit_log(rig: Rig) -> str:
    """Where the installed service keeps its own."""
    return f"{rig.root}{LOGS}/audit.jsonl"


def _compiled(machine: Machine) -> str:
    """A delivery to copy, compiled as pip leaves it: made once, as that takes a second."""
    rig, place = machine.rig, machine.delivery
    if not os.path.isdir(place):
        python = deliver(place, "/usr/bin/python3", python_version(rig), owner=1500)
        run(rig, [python, "-m", "compileall", "-q", f"{place}/lib"], rig.user)
    return place


def python_version(rig: Rig) -> str:
    """Of the root's own Python, as 3.11."""
    return os.path.basename(os.readlink(f"{rig.root}/usr/bin/python3")).removeprefix("python")


def run(rig: Rig, words: list[str], user: str = "root") -> Done:
    """Run it as a person would: with none of the tests' own settings for Python."""
    return ns.run(
        rig.namespace,
        ["env", "-u", "PYTHONPATH", "-u", "PYTHONPYCACHEPREFIX", *words],
        user=user,
        seconds=120,
    )


def setup(rig: Rig, python: str, *words: str) -> str:
    """What `storewarden setup` says, which must succeed."""
    done = run(rig, [python, "-m", "storewarden", "setup", *words])
    assert done.returncode == 0, done.stdout + done.stderr + journal(rig)
    return done.stdout


def setup_again(rig: Rig) -> str:
    """What the installed command says when it sets up once more."""
    done = run(rig, ["storewarden", "setup"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def journal(rig: Rig) -> str:
    """What the units have said last."""
    said = ["journalctl", "--no-pager", "-n", "60", "-u", "storewarden*"]
    return ns.run(rig.namespace, said).stdout


def main_process(rig: Rig, unit: str) -> dict[str, str]:
    """The fields of /proc/PID/status of the unit's process."""
    pid = control(rig, "show", "--property=MainPID", "--value", unit).strip()
    assert pid != "0", f"{unit} does not run"
    text = ns.read(f"/proc/{rig.namespace.first}/root/proc/{pid}/status")
    return {
        name: value.strip() for name, value in (line.split(":", 1) for line in text.splitlines())
    }


def exposure(rig: Rig, unit: str) -> float:
    """What `systemd-analyze security` makes of it: 0 is the best, 10 the worst."""
    said = ns.run(rig.namespace, ["systemd-analyze", "security", "--no-pager", unit]).stdout
    return float(said.splitlines()[-1].split(": ")[1].split()[0])


def names(rig: Rig) -> set[str]:
    """Every file outside of Nix's, the tests', and what systemd and account tools keep."""
    found: set[str] = set()
    for top in ("etc", "opt", "usr", "var", "home", "root", "srv"):
        for place, directories, files in os.walk(f"{rig.root}/{top}"):
            found |= {f"{place}/{name}" for name in (*directories, *files)}
    found = {path.removeprefix(rig.root) for path in found}
    ours_not = ("/var/log/journal", "/var/lib/systemd", "/var/cache/storewarden-lab")
    backups = {f"/etc/{name}" for name in _OF_ACCOUNTS}
    return {path for path in found - backups if not path.startswith(ours_not)}


def accounts(rig: Rig) -> list[str]:
    """The text of the files that say which users and groups there are."""
    return [ns.read(f"{rig.root}/etc/{name}") for name in ("passwd", "group")]
