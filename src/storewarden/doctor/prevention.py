# SPDX-License-Identifier: MIT
"""Whether Nix removes what is in the way of a build, and whether what it runs for that can hurt."""

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from storewarden.doctor.nix import Installation
from storewarden.doctor.patient import Diagnosis, Patient, Step, Subject, Unknown
from storewarden.prevention import INCLUDED, SETTING, chained, other_hook
from storewarden.readable import SET_UP

_PREVENTION = Subject("prevention")
_SLOW = 1.0
_SECONDS = 5.0
_FAILS = "Nix ends every build whose hook is not there, fails, or prints what it does not know."


@dataclass(frozen=True, slots=True)
class Hook:
    """What Nix runs before it builds, where that is storewarden's."""

    path: str
    """As Nix is set; empty where it is set to nothing."""
    included: bool
    """Whether setup has put the setting there."""
    ours: bool = False
    """Whether what lies there is storewarden's."""
    bad: str = ""
    """The first on its way that is not there, or that others than root can change."""
    took: float = 0.0
    """Seconds from its start to its end."""
    wrong: str = ""
    """What it did that fails builds."""
    then: str = ""
    """What it runs after itself."""
    other: tuple[str, str] | None = None
    """Which hook somebody else has set in nix.conf, and where."""


def look(patient: Patient) -> Hook:
    """What Nix is set to, and how that behaves without an argument, which does nothing."""
    settings = patient[Installation].conf.settings
    path = "" if isinstance(settings, Unknown) else settings.hook or ""
    included = os.path.exists(INCLUDED)
    if not path:
        return Hook("", included)
    return look_at(path, included=included)


def look_at(path: str, *, included: bool) -> Hook:
    """What that hook is, and what it does when it has nothing to do."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 16)
    except (OSError, ValueError) as cause:
        return Hook(path, included, bad=f"{path} cannot be read ({cause})")
    if "/helper/before_build.py" not in text:
        return Hook(path, included)
    if bad := _changeable(path):
        return Hook(path, included, ours=True, bad=bad)
    began = time.monotonic()
    wrong = _tried(path)
    took = time.monotonic() - began
    then, other = chained(text), other_hook()
    return Hook(path, included, True, "", took, wrong, then, other)  # noqa: FBT003 - it is ours


def _changeable(path: str) -> str:
    """The first on the way to it that others than root can change; empty if none is."""
    at = os.path.realpath(path)
    while True:
        found = os.lstat(at)
        kept = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (found.st_mode & 0o022 and not kept):
            return f"others than root can change {at}"
        if at == "/":
            return "" if os.access(path, os.X_OK) else f"{path} cannot be run"
        at = os.path.dirname(at)


def _tried(path: str) -> str:
    try:
        done = subprocess.run(
            [path], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as cause:
        return f"it cannot be run: {cause}"
    if done.returncode != 0:
        return f"it ended with status {done.returncode}"
    return "it printed something" if done.stdout else ""


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """Whether it is there, is root's, is quick and quiet, and has the other one run."""
    hook = patient[Hook]
    again = _again(patient)
    if hook.included and not (hook.ours or hook.bad):
        what = f"runs {hook.path} instead" if hook.path else "has not read it"
        why = f"{INCLUDED} names the hook, and {SETTING} of Nix is another."
        yield _PREVENTION.note(f"Prevention is set up, and Nix {what}", why, *again)
    if hook.bad and (hook.ours or hook.included):
        title = f"What Nix runs before each build is not safe: {hook.bad}"
        yield _PREVENTION.problem(title, _FAILS, *again)
    if not hook.ours or hook.bad:
        return
    if hook.wrong or hook.took > _SLOW:
        what = hook.wrong or f"it takes {hook.took:.1f} s"
        yield _PREVENTION.problem(f"What Nix runs before each build: {what}", _FAILS, *again)
    elif hook.included and (hook.other or ("", ""))[1] != hook.then:
        place, program = hook.other or ("nix.conf", "no hook")
        title = f"{place} sets {program}, and after ours {hook.then or 'none'} is run"
        yield _PREVENTION.note(title, "It was changed since prevention was set up.", *again)
    else:
        then = f", then {hook.then}" if hook.then else ""
        took = f"{hook.took * 1000:.0f} ms"
        yield _PREVENTION.ok(f"What is in the way of a build goes before it begins ({took}{then})")


def _again(patient: Patient) -> tuple[Step, ...]:
    if patient.declared:
        words = f"services.storewarden.prevent in the configuration of {patient.declared}"
        return (Step(f"See {words}, and switch to it again."),)
    off = Step("Or turn it off.", f"sudo rm -f {INCLUDED}")
    return Step("Set it up again.", f"{SET_UP} --prevent"), off
