# SPDX-License-Identifier: MIT
"""What `setup --prevent` adds: a hook that Nix runs before it builds, and the line that names it.

A hook that is not there fails every build. So Nix's settings include the one file that names it,
which lies beside it, and only if that is there: whoever removes /etc/storewarden by hand, or with a
part of it this file, turns the hook off. It is taken back in this order too: the setting, a new
nix-daemon, and the hook at last, once no Nix process is left that has read the setting.
"""

import os
import stat
import sys
import time
from collections.abc import Sequence

from storewarden.config import DEFAULT_CONFIG
from storewarden.prevention import (
    CUSTOM_CONF,
    HOOK,
    INCLUDE,
    INCLUDED,
    NIX_CONF,
    SETTING,
    conf_of,
    hook_text,
    other_hook,
    place_in,
)
from storewarden.processes import nix_processes
from storewarden.setup import darwin
from storewarden.setup.code import PACKAGE, Program
from storewarden.setup.files import File, Manifest, SetupError, State, missing_directories
from storewarden.setup.plan import Keep, RunCommand, SetupStep, TakeAway, Write, output_of, removals

PLACES = (INCLUDED, HOOK)
_DAEMONS = ("org.nixos.nix-daemon", "systems.determinate.nix-daemon")
"""How nix-daemon's job is called by Nix's installer, and by Determinate's."""
_PATIENCE = 3.0
"""Seconds for those to end whose client has ended."""
Readers = frozenset[tuple[int, float]] | None
"""Processes of Nix's that may have read the setting."""
_RUNS_STILL = (
    "a Nix that began before may still run it, and would fail without it; take it back once more"
    " when that has ended (it does no harm meanwhile)"
)


def items(code: Program, top: str) -> tuple[File, ...]:
    """The hook, run with that program, and the setting that names it."""
    text = hook_text(code.python, _package(code), DEFAULT_CONFIG, other_hook(top))
    setting = (
        f"# Of storewarden: sudo storewarden setup --uninstall --prevent\n{SETTING} = {HOOK}\n"
    )
    return File(HOOK, text.encode(), 0o755), File(INCLUDED, setting.encode())


def _package(code: Program) -> str:
    """Where the services have this package."""
    copy = (item.path for item in code.items if item.path.endswith("/storewarden/__init__.py"))
    return os.path.dirname(next(copy, f"{PACKAGE}/__init__.py"))


def steps_on(code: Program, changed: Sequence[SetupStep], top: str) -> list[SetupStep]:
    """What has Nix run the hook, once that is there: it is tried, and then named."""
    writing = _write(conf_of(top), top, wanted=True)
    new = any(isinstance(step, Write) and step.item.path in PLACES for step in changed)
    if top or not (writing or new):
        return writing
    begins = [code.python, "-I", "-S", "-B", place_in(_package(code)), DEFAULT_CONFIG]
    return [*map(RunCommand, [begins, [HOOK]]), *writing, *_restart()]


def steps_off(before: Manifest, top: str) -> list[SetupStep]:
    """What has Nix run it no more, as far as it does; the hook itself stays."""
    setting = removals([INCLUDED], before, top) if INCLUDED in before.files else []
    lines = [step for conf in (NIX_CONF, CUSTOM_CONF) for step in _write(conf, top, wanted=False)]
    done: list[SetupStep] = [*setting, *lines]
    return [*done, *(_restart() if done and not top else ())]


def also_forked(readers: Readers, now: Readers, new: float | None) -> Readers:
    """Those too that the old nix-daemon began until the new one was there: they have what it read.

    `now` are Nix's processes once it is set to run the hook no more, and `new` is when the daemon
    that is there then began.
    """
    if readers is None or now is None:
        return None
    return readers | {(pid, began) for pid, began in now if new is None or began < new}


def steps_back(before: Manifest, readers: Readers, top: str) -> list[TakeAway | Keep]:
    """What takes the hook away, unless one of these may run it still; None: it is not known."""
    if HOOK not in before.files:
        return []
    patience = time.monotonic() + _PATIENCE
    while not top and _may_run(readers):
        if time.monotonic() < patience:
            time.sleep(0.1)
            continue
        return [Keep(HOOK, _RUNS_STILL)]
    return removals([HOOK], before, top)


def _may_run(readers: Readers) -> bool:
    """Whether one of them is there still, as far as that is known."""
    if readers is None:
        return True
    there = nix_processes() if readers else frozenset()
    return there is None or bool(readers & there)


def _write(conf: str, top: str, *, wanted: bool) -> list[SetupStep]:
    """The step after which the line stands in that file, or does not."""
    place = f"{top}{conf}"
    try:
        found = os.lstat(place)
        # Lines as Nix takes them: "\r" ends none, and stays.
        with open(place, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            lines = file.readlines()
        mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    except FileNotFoundError:
        found, lines, mode, owner = None, [], 0o644, (0, 0)
    kept = [line for line in lines if line.strip() != INCLUDE]
    there = len(kept) < len(lines)
    if there == wanted:
        return []
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise SetupError(f"{conf} is not a plain file; add this line where it is made: {INCLUDE}")
    missing_directories(os.path.dirname(conf), top or "/")
    if wanted and kept and not kept[-1].endswith("\n"):
        kept.append("\n")
    new = "".join([*kept, f"{INCLUDE}\n"] if wanted else kept)
    state = State.ABSENT if found is None else State.OLDER
    return [Write(File(conf, new.encode("utf-8", "surrogateescape"), mode, owner=owner), state)]


def _restart() -> list[SetupStep]:
    """Have nix-daemon read its settings anew; builds that run go on."""
    if sys.platform == "darwin":
        jobs = [f"system/{label}" for label in _DAEMONS if darwin.is_loaded(label)]
        return [RunCommand(["launchctl", "kickstart", "-k", job]) for job in jobs]
    unit = "nix-daemon.service"
    if output_of(["systemctl", "is-active", unit]).strip() != "active":
        return []  # its socket starts it when somebody asks
    return [RunCommand(["systemctl", "restart", unit])]
