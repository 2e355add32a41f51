# SPDX-License-Identifier: MIT
"""What the service needs on macOS: a daemon for the helper, an agent for who sets it up.

No Mac has run it yet (docs/macos.md).
"""

import plistlib
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storewarden.setup.code import shipped
from storewarden.setup.files import File, SetupError
from storewarden.setup.plan import output_of

DAEMON, AGENT = "org.storewarden.helper", "org.storewarden.watch"
PLACES = {
    DAEMON: f"/Library/LaunchDaemons/{DAEMON}.plist",
    AGENT: f"/Library/LaunchAgents/{AGENT}.plist",
}
SOCKET = "/var/run/storewarden/helper.sock"
_ANY_PYTHON, _ANY_USER = "/usr/bin/python3", "storewarden"


@dataclass(frozen=True, slots=True)
class Person:
    """Whose session the watcher runs in, and whose requests the helper takes."""

    name: str
    uid: int
    home: str


def person(environment: Mapping[str, str]) -> Person:
    """Who called sudo; `SetupError` if nobody did."""
    name = environment.get("SUDO_USER", "")
    if name in {"", "root"}:
        raise SetupError("run it from your own account, as: sudo storewarden setup")
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise SetupError(f"there is no user {name!r}") from None
    return Person(name, found.pw_uid, found.pw_dir)


def jobs(python: str, owner: Person) -> tuple[File, ...]:
    """The property lists, with that interpreter and for that person."""
    changes = {
        DAEMON: {},
        AGENT: {"StandardErrorPath": f"{owner.home}/Library/Logs/storewarden.log"},
    }
    files = []
    for label, place in PLACES.items():
        document: dict[str, Any] = plistlib.loads(shipped(f"launchd/{label}.plist"))
        named = {_ANY_PYTHON: python, _ANY_USER: owner.name}
        # The module is called as the user is in the file: only the first of such words is one.
        words = list(document["ProgramArguments"])
        for old, new in named.items():
            words[words.index(old)] = new
        document |= {"ProgramArguments": words, **changes[label]}
        files.append(File(place, plistlib.dumps(document)))
    return tuple(files)


def settings(owner: Person) -> dict[str, str]:
    """What the first configuration says: where things are on macOS."""
    return {"socket": SOCKET, "runtime-dir": f"{owner.home}/Library/Caches/storewarden"}


def start_words(owner: Person, *, changed: bool) -> list[list[str]]:
    """The commands still wanted once the files are right."""
    words = []
    for label, domain in _domains(owner).items():
        loaded = bool(output_of(["launchctl", "print", f"{domain}/{label}"]))
        if loaded and changed:
            words.append(["launchctl", "bootout", f"{domain}/{label}"])
        if changed or not loaded:
            words.append(["launchctl", "bootstrap", domain, PLACES[label]])
    return words


def stop_words(owner: Person) -> list[list[str]]:
    """The commands that end all of it, as far as it is there."""
    return [
        ["launchctl", "bootout", f"{domain}/{label}"]
        for label, domain in _domains(owner).items()
        if output_of(["launchctl", "print", f"{domain}/{label}"])
    ]


def _domains(owner: Person) -> dict[str, str]:
    return {DAEMON: "system", AGENT: f"gui/{owner.uid}"}
