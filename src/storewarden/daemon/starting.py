# SPDX-License-Identifier: MIT
"""How the service is started on this machine, where its log is, and what keeps it from starting."""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden import host
from storewarden.readable import DECLARE, SET_UP, WATCH

UNITS = (
    "/etc/systemd/system/storewarden.service",
    "/usr/lib/systemd/system/storewarden.service",
    "/lib/systemd/system/storewarden.service",
)
JOBS = ("/Library/LaunchDaemons/org.storewarden.watch.plist",)
_SYSTEMD = "/run/systemd/system"
"""There where systemd is the first process: sd_booted(3)."""
_INTERPRETER = re.compile(r"(?:^ExecStart=|<string>)(/[^\s<]*/python[\d.]*)(?=\s|<)", re.MULTILINE)
_LARGEST = 1024 * 1024
_START = "sudo systemctl start storewarden"
_LOG = "sudo journalctl -u storewarden -n 30"
_START_JOB = "sudo launchctl kickstart system/org.storewarden.watch"
_LOG_OF_JOB = "tail -n 30 ~/Library/Logs/storewarden.log"


@dataclass(frozen=True, slots=True)
class Starting:
    """What starts the service here."""

    set_up: str
    """How it is set up here, or brought to the version of this program."""
    unit: str = ""
    """The unit or job that starts it; empty where it was not set up."""
    start: str = ""
    """The command that has that started; empty where that would fail."""
    log: str = ""
    """The command that shows why it does not run."""
    hindered: str = ""
    """What keeps it from starting, in one sentence; empty where nothing is known to."""

    def advice(self) -> tuple[tuple[str, str], ...]:
        """What to do where it does not run: for what, and the command."""
        if self.start:
            return (("to start it:", self.start), ("why it ended:", self.log))
        if self.set_up == WATCH:
            return (("to have it run here, as root:", self.set_up),)
        again = "to set it up anew:" if self.unit else "to have it run from now on:"
        return ((again, self.set_up),)


def how_started() -> Starting:
    """As it is on this machine."""
    return starting(
        host.declared_by(),
        darwin=sys.platform == "darwin",
        systemd=os.path.isdir(_SYSTEMD),
        units=JOBS if sys.platform == "darwin" else UNITS,
    )


def starting(declared: str, *, darwin: bool, systemd: bool, units: Sequence[str]) -> Starting:
    """On a machine of that system of modules, if any, and with one of those files, if any."""
    if not darwin and not systemd:
        return Starting(WATCH)
    set_up = DECLARE if declared else SET_UP
    unit = next(filter(os.path.lexists, units), "")
    if not unit:
        return Starting(set_up)
    if gone := _gone(unit):
        return Starting(set_up, unit, hindered=f"it cannot start: its interpreter {gone} is gone")
    start, log = (_START_JOB, _LOG_OF_JOB) if darwin else (_START, _LOG)
    return Starting(set_up, unit, start, log)


def _gone(unit: str) -> str:
    """The interpreter that the unit or job names, if it is not there; empty otherwise."""
    with suppress(OSError), open(unit, encoding="utf-8", errors="replace") as file:
        named = _INTERPRETER.search(file.read(_LARGEST))
        if named and not os.path.exists(named[1]):
            return named[1]
    return ""
