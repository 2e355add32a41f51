# SPDX-License-Identifier: MIT
"""nix.conf: can it be read, and are its settings those that nix-daemon builds with.

What Nix may not read it goes on without, and does not say so (libutil config.cc, 2.8): what it
tells then are its defaults, while nix-daemon, which is root, builds by the file.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden.doctor.diagnosis import AS_ROOT, Diagnosis, unknown
from storewarden.doctor.nix import Daemon, Installation, restart
from storewarden.doctor.patient import Patient, Unknown, attempt, within
from storewarden.nix_queries import Settings, settings_of

_FILES = ("/etc/nix/nix.conf", "/etc/xdg/nix/nix.conf")
"""Those of the system. A user's own, which Nix is not let see here, are not nix-daemon's."""
_CHANGING = (*_FILES, "/etc/nix/nix.custom.conf")
"""The last is where Determinate Nix has what its users set."""
_MOST_BYTES = 1 << 20
_CLOCK_SECONDS = 5.0
"""By which a process's start, counted since boot, may seem earlier than it was."""


@dataclass(frozen=True, slots=True)
class NixConf:
    """Nix's settings, and the files that they come from."""

    settings: Settings | Unknown
    changed: float | None
    """Unix time of the last change of nix.conf; None if there is none, or it is not seen."""
    hidden: str = ""
    """A file of it that this user may not read; empty if he may read all."""


def look(patient: Patient, files: Sequence[str] = _FILES) -> NixConf:
    """What Nix tells of its settings, where this user may read all that they come from."""
    unread = within(lambda: hidden(files))
    if unread == "":
        return NixConf(attempt(lambda: settings_of(patient.nix)), last_changed())
    if isinstance(unread, Unknown):
        return NixConf(unread, last_changed())
    return NixConf(Unknown(f"this user may not read {unread}"), last_changed(), unread)


def hidden(files: Sequence[str]) -> str:
    """The first of those files, and of what they include, that may not be read; empty if none.

    `OSError` where one is no file, or the disk fails.
    """
    waiting, seen = list(files), set[str]()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(_MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:
            return path
        waiting += included(text, os.path.dirname(path))
    return ""


def included(text: str, directory: str) -> Iterator[str]:
    """The files that a configuration includes, as Nix resolves their names."""
    for line in text.split("\n"):
        match line.partition("#")[0].split():
            case ["include" | "!include", name]:
                yield os.path.normpath(os.path.join(directory, name))


def last_changed(places: Sequence[str] = _CHANGING) -> float | None:
    """When Nix's configuration was last changed, as a Unix time; None if it is not to be seen."""
    times = []
    for place in places:
        with suppress(OSError):
            times.append(os.stat(place).st_ctime)
    return max(times, default=None)


def judge(patient: Patient) -> Iterator[Diagnosis]:
    """Whether what Nix tells are the settings that count."""
    nix, conf = patient[Installation], patient[NixConf]
    if conf.hidden:
        yield unknown(
            "settings",
            f"This user may not read {conf.hidden}",
            "Nix goes on without it and does not say so, and then tells other settings than those"
            " that nix-daemon builds with. How builds are sandboxed, and as whom they run, cannot"
            " be told.",
            *(() if nix.apart or patient.uid == 0 else (AS_ROOT,)),
        )
    elif isinstance(conf.settings, Unknown):
        yield unknown(
            "settings",
            f"Nix does not tell its settings: {conf.settings.reason}",
            "Whether builds are sandboxed, and as whom they run, cannot be told.",
        )
    elif isinstance(nix.daemon, Daemon) and _is_older(nix.daemon.began, conf.changed):
        yield unknown(
            "settings",
            "nix-daemon has been running since before nix.conf was last changed",
            "It builds with what it read when it started. What is said here of settings is what"
            " nix.conf says now.",
            *restart(patient),
        )


def _is_older(began: float | None, changed: float | None) -> bool:
    return began is not None and changed is not None and changed > began + _CLOCK_SECONDS
