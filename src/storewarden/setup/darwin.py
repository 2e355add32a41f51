# SPDX-License-Identifier: MIT
"""What the service needs on macOS: two daemons, the helper and the watcher of who sets it up.

The watcher is no agent: for a daemon nobody needs to be logged in at the screen, and there is one
of it, where an agent for both kinds of session would be started in each. No Mac has run it yet
(docs/macos.md).
"""

import os
import plistlib
import pwd
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from storewarden.host.darwin import AS_ROOT_ALREADY, SOCKET, others_write
from storewarden.setup.code import shipped
from storewarden.setup.files import File, SetupError
from storewarden.setup.plan import Keep, RunCommand, execution

HELPER, WATCHER = "org.storewarden.helper", "org.storewarden.watch"
PLACES = {label: f"/Library/LaunchDaemons/{label}.plist" for label in (HELPER, WATCHER)}
STATE = os.path.dirname(SOCKET)
LOCK = f"{STATE}/setup.lock"
AFTER_A_CHANGE = """\
#   storewarden check-config && sudo launchctl kill SIGHUP system/org.storewarden.watch
"""
"""What the first configuration says to do after a change of it."""
PATIENCE = 30.0
"""Seconds until both are at work: launchd starts them in its own time."""
_ANY_PYTHON, _ANY_USER, _ANY_LOG = "/usr/bin/python3", "storewarden", "/var/log/storewarden.log"
_NO_SERVICE, _NO_PROCESS = 113, 3
_UNDER_WAY = (36, 37)
"""EINPROGRESS and EALREADY: a job is being booted out."""
_STILL_THERE = (5, *_UNDER_WAY)
"""EIO is what bootstrap says of a label that is there, until the old job has ended, too."""
_TRIES = 10
"""Half a second apart, as Nix's own installers try it."""


@dataclass(frozen=True, slots=True)
class Person:
    """As whom the watcher runs, and whose requests the helper takes."""

    name: str
    uid: int
    home: str

    @property
    def log(self) -> str:
        """Where the watcher writes, which opens it as that person."""
        return f"{self.home}/Library/Logs/storewarden.log"


def person(environment: Mapping[str, str]) -> Person:
    """Who called sudo, or who asks without it; `SetupError` if that is root alone."""
    try:
        if os.geteuid():
            found = pwd.getpwuid(os.geteuid())
        else:
            found = pwd.getpwnam(environment.get("SUDO_USER", ""))
    except KeyError:
        found = None
    if found is None or found.pw_uid == 0:
        raise SetupError("run it from the account of who uses Nix: sudo storewarden setup")
    return Person(found.pw_name, found.pw_uid, found.pw_dir)


def jobs(python: str, owner: Person) -> tuple[File, ...]:
    """The property lists, with that interpreter and for that person."""
    named = {
        HELPER: {_ANY_PYTHON: python, _ANY_USER: owner.name},
        WATCHER: {_ANY_PYTHON: python, _ANY_LOG: owner.log},
    }
    whose = {HELPER: {}, WATCHER: {"UserName": owner.name}}
    files = []
    for label, place in PLACES.items():
        document = _shipped(label)
        words = list(document["ProgramArguments"])
        for old, new in named[label].items():
            words[words.index(old)] = new
        document |= {"ProgramArguments": words, **whose[label]}
        files.append(File(place, plistlib.dumps(document)))
    return tuple(files)


def settings(owner: Person) -> dict[str, str]:
    """What the first configuration says: where only that person makes names."""
    return {"runtime-dir": f"{owner.home}/Library/Application Support/storewarden"}


def shared_directories() -> tuple[Keep, ...]:
    """A word on each directory whose group may write, and is taken for root all the same."""
    there = [(place, os.stat(place)) for place in AS_ROOT_ALREADY if os.path.isdir(place)]
    why = "its group may write there, whose members can become root anyway"
    return tuple(
        Keep(place, f"{why}; to end that: sudo chmod g-w {place}")
        for place, found in there
        if found.st_mode & 0o020 and not others_write(place, found)
    )


def helper_log() -> str:
    """Where launchd writes what the helper says, which it does not take away with the job."""
    return str(_shipped(HELPER)["StandardErrorPath"])


def start_words(*, changed: bool) -> list[RunCommand]:
    """The commands still wanted once the files are right; the watcher ends first, begins last."""
    loaded = {label: is_loaded(label) for label in PLACES}
    stop = [label for label in reversed(PLACES) if loaded[label] and changed]
    start = [label for label in PLACES if changed or not loaded[label]]
    return [
        *map(_stop, stop),
        *(
            RunCommand(
                ["launchctl", "bootstrap", "system", PLACES[label]],
                again=_STILL_THERE,
                tries=_TRIES,
            )
            for label in start
        ),
    ]


def stop_words() -> list[RunCommand]:
    """The commands that end all of it, as far as it is there, and remove what the watcher wrote."""
    forget = []
    with suppress(OSError, ValueError, KeyError), open(PLACES[WATCHER], "rb") as file:
        found = pwd.getpwnam(plistlib.load(file)["UserName"])
        owner = Person(found.pw_name, found.pw_uid, found.pw_dir)
        # As that person, who owns every directory on the way.
        own = (settings(owner)["runtime-dir"], owner.log)
        forget = [RunCommand(["sudo", "-u", owner.name, "rm", "-rf", *own])]
    return [*(_stop(label) for label in reversed(PLACES) if is_loaded(label)), *forget]


def _stop(label: str) -> RunCommand:
    """Boot it out until it is gone: one that is at work ends first, or is killed in the end."""
    seconds = _shipped(label).get("ExitTimeOut", 20)  # launchd.plist(5)
    return RunCommand(
        ["launchctl", "bootout", f"system/{label}"],
        well=(_NO_PROCESS, _NO_SERVICE),
        again=(0, *_UNDER_WAY),
        tries=2 * seconds + _TRIES,
    )


def is_loaded(label: str) -> bool:
    """Whether launchd knows the job, by launchctl's status; `SetupError` if that tells neither."""
    words = ["launchctl", "print", f"system/{label}"]
    status, said = execution(words)
    if status not in {0, _NO_SERVICE}:
        raise SetupError(f"`{' '.join(words)}` failed ({status}): {said}")
    return status == 0


def _shipped(label: str) -> dict[str, Any]:
    document: dict[str, Any] = plistlib.loads(shipped(f"launchd/{label}.plist"))
    return document
