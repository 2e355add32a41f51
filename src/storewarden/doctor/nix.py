# SPDX-License-Identifier: MIT
"""Nix: does its program run, does nix-daemon answer, which versions are they, and what settings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from storewarden import host, nix_queries, processes
from storewarden.doctor.patient import (
    AS_ROOT,
    Diagnosis,
    Patient,
    Step,
    Subject,
    Unknown,
    attempt,
    exists,
    within,
)
from storewarden.nix_queries import Flavour, NixVersion, Settings
from storewarden.store.nix import Nix, ask
from storewarden.store.paths import StorePath
from storewarden.store.store import Fact, Known

_NIX, _DAEMON, _SETTINGS = Subject("nix"), Subject("daemon"), Subject("settings")
_NOBODYS = StorePath("00000000000000000000000000000000-storewarden-doctor")
"""A path that no store has: what is wanted is not the answer, but that there is one."""
_RESTART = "sudo systemctl restart nix-daemon"
_FILES = ("/etc/nix/nix.conf", "/etc/xdg/nix/nix.conf")
"""Those of the system. A user's own, which Nix is not let see here, are not nix-daemon's."""
_CHANGING = (*_FILES, "/etc/nix/nix.custom.conf")
"""The last is where Determinate Nix has what its users set."""
_MOST_BYTES = 1 << 20
_CLOCK_SECONDS = 5.0
"""By which a process's start, counted since boot, may seem earlier than it was."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """Who listens at nix-daemon's socket."""

    pid: int | None
    """None if it runs in a pid namespace that cannot be seen."""
    began: float | None
    """Unix time at which the longest-running one began; None if none is seen."""


@dataclass(frozen=True, slots=True)
class NixConf:
    """Nix's settings, and the files that they come from."""

    settings: Settings | Unknown
    changed: float | None
    """Unix time of the last change of nix.conf; None if there is none, or it is not seen."""
    hidden: str = ""
    """A file of it that this user may not read; empty if he may read all."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The program that is asked, and the daemon that it asks."""

    version: NixVersion | Unknown
    daemon_version: NixVersion | Unknown
    answers: Fact
    """Whether the daemon says of a path if it is valid; unknown if there is no daemon."""
    daemon: Daemon | Unknown | None
    """None if nobody listens."""
    state: Known
    """Whether Nix's state directory is there."""
    conf: NixConf
    misconfigured: bool = False
    """Whether the program cannot be run because of its configuration: without that it can."""

    @property
    def builder(self) -> NixVersion | Unknown:
        """The version that builds: that of the daemon, or else that of the program."""
        return self.version if isinstance(self.daemon_version, Unknown) else self.daemon_version

    @property
    def apart(self) -> bool:
        """Whether Nix's state, or nix-daemon, is outside of this container or sandbox."""
        outside = isinstance(self.daemon, Daemon) and self.daemon.pid is None
        return outside or self.state is Known.NO


def look(patient: Patient) -> Installation:
    """All that the program and the daemon's socket tell, as an ordinary user may ask."""
    nix, state_dir = patient.nix, patient.config.state_dir
    version, answers = attempt(lambda: nix_queries.version_of(nix)), _answers(nix)
    heard = answers.known is Known.YES
    return Installation(
        version,
        _daemon_version(nix, version) if heard else Unknown("no daemon answers"),
        answers,
        within(lambda: listening_daemon(state_dir)),
        exists(state_dir),
        look_at_settings(nix),
        misconfigured=isinstance(version, Unknown) and nix_queries.runs_without_configuration(nix),
    )


def _answers(nix: Nix) -> Fact:
    """Whether the daemon answers. Without one nothing is asked: root's Nix would make a store."""
    if nix.environment().get("NIX_REMOTE") != "daemon":
        return Fact(Known.UNKNOWN, "there is no nix-daemon")
    found = ask(nix, [_NOBODYS])[_NOBODYS]
    silent = found.known is Known.UNKNOWN
    return Fact(Known.NO, found.detail) if silent else Fact(Known.YES)


def _daemon_version(nix: Nix, version: NixVersion | Unknown) -> NixVersion | Unknown:
    found = attempt(lambda: nix_queries.version_of_daemon(nix))
    match version, found:
        case NixVersion() as here, NixVersion() as there if here.number == there.number:
            return here  # it gives its number alone: of the same number, it is of the same make
    return found


def listening_daemon(state_dir: str) -> Daemon | None:
    """Who listens at its socket; None if nobody does. `OSError` if it may not be asked."""
    found = host.listener(f"{state_dir}/daemon-socket/socket")
    if found is None:
        return None
    _, pid = found
    return Daemon(pid, None if pid is None else processes.oldest_daemon())


def look_at_settings(nix: Nix, files: Sequence[str] = _FILES) -> NixConf:
    """What Nix tells of its settings, where this user may read all that they come from."""
    unread = within(lambda: hidden(files))
    if unread == "":
        return NixConf(attempt(lambda: nix_queries.settings_of(nix)), last_changed())
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
    """The program, the daemon, and the settings."""
    yield _program(patient)
    yield _daemon(patient)
    yield from _settings(patient)


def _program(patient: Patient) -> Diagnosis:
    nix, program = patient[Installation], patient.nix.program
    match nix.version, nix.daemon_version:
        case Unknown(reason), _:
            return _no_program(patient, reason)
        case NixVersion() as here, NixVersion() as there if here.number != there.number:
            return _NIX.note(
                f"nix-daemon is {there.name}, and {program} is {here.name}",
                "The daemon builds, so its bugs count. It may be a version that an update left"
                " running.",
                *restart(patient),
            )
        case NixVersion() as here, NixVersion():
            return _NIX.ok(f"{here.name} ({program}, and nix-daemon)")
        case NixVersion() as here, _:
            daemon = isinstance(nix.daemon, Daemon)
            more = "; which version nix-daemon is, it does not tell" if daemon else ""
            return _NIX.ok(f"{here.name} ({program}){more}")
    raise AssertionError(nix)


def _no_program(patient: Patient, reason: str) -> Diagnosis:
    if patient[Installation].misconfigured:
        place = place_of_settings(patient)
        return _NIX.problem(
            f"Nix does not run with its configuration: {reason}",
            "Whether a path is valid Nix has to say, so nothing can be removed. A nix-daemon"
            " that runs goes on with what it has read; one that starts now ends at once.",
            Step(f"Mend it in {place}, or what that includes. Then Nix runs:"),
            Step("", f"{patient.nix.program} --version"),
        )
    return _NIX.problem(
        f"Nix cannot be asked: {reason}",
        "Whether a path is valid Nix has to say, so nothing can be removed.",
        Step("Install Nix, or name its program in the configuration (nix = ...)."),
    )


def _daemon(patient: Patient) -> Diagnosis:
    """Who listens at its socket, and what came of asking."""
    nix = patient[Installation]
    silent = f"Nix says: {nix.answers.detail}" if nix.answers.known is Known.NO else ""
    match nix.daemon:
        case Unknown(reason):
            return _DAEMON.problem(
                f"nix-daemon cannot be reached: {reason}",
                f"This user may not ask Nix, or it hangs. {silent}".strip(),
                Step("May this user ask? Its groups, and that of the socket's directory."),
                Step("", f"id; ls -ld {patient.config.state_dir}/daemon-socket"),
            )
        case None:
            return _no_daemon(patient, silent)
        case Daemon() if silent:
            return _silent(patient, silent)
        case Daemon(pid=None):
            return _DAEMON.unknown(
                "nix-daemon answers, but runs outside of this container or sandbox",
                "Its settings, its builds and their locks cannot be seen from here, and"
                " storewarden removes nothing here.",
                Step("Look where nix-daemon runs.", "storewarden doctor"),
            )
        case Daemon():
            return _DAEMON.ok("nix-daemon answers")


def _silent(patient: Patient, silent: str) -> Diagnosis:
    if isinstance(patient[Installation].version, Unknown):
        # The program failed, whatever the daemon does: no reason to restart that.
        return _DAEMON.unknown(
            "nix-daemon listens; whether it answers cannot be asked without Nix",
            "It may be at work as ever.",
        )
    return _DAEMON.problem(
        "nix-daemon listens and does not answer",
        f"{silent}. Nothing builds, and nothing can be removed.",
        *restart(patient),
    )


def _no_daemon(patient: Patient, silent: str) -> Diagnosis:
    if patient[Installation].state is Known.NO:
        return _DAEMON.problem(
            f"There is no {patient.config.state_dir} here: this is no machine with Nix, or a"
            " sandbox that was not given it",
            "Nothing of Nix can be asked or seen, so nothing is removed.",
            Step("Look where Nix runs.", "storewarden doctor"),
        )
    if silent:
        return _DAEMON.problem(
            "Nobody listens at nix-daemon's socket, and Nix does not answer",
            f"{silent}. Nothing builds, and nothing can be removed.",
            _start(patient),
        )
    return _DAEMON.note(
        "There is no nix-daemon: Nix opens the store by itself",
        "Builds run as children of whoever asks for them.",
    )


def _start(patient: Patient) -> Step:
    if patient.darwin:
        return Step("Start it.", _restart_on_macos(patient))
    if patient.systemd:
        return Step("Start it.", "sudo systemctl start nix-daemon.socket nix-daemon.service")
    return Step("Start it, as root.", "nix-daemon --daemon")


def restart(patient: Patient) -> tuple[Step, ...]:
    """How nix-daemon is made to read nix.conf again; nothing where there is none."""
    if not isinstance(patient[Installation].daemon, Daemon):
        return ()
    if patient.darwin:
        return (Step("Restart nix-daemon.", _restart_on_macos(patient)),)
    return (Step("Restart nix-daemon.", _RESTART if patient.systemd else ""),)


def _restart_on_macos(patient: Patient) -> str:
    """By the label that the installer of this Nix gave its daemon."""
    whose = "systems.determinate" if _is_determinate(patient) else "org.nixos"
    return f"sudo launchctl kickstart -k system/{whose}.nix-daemon"


def _is_determinate(patient: Patient) -> bool:
    version = patient[Installation].builder
    return isinstance(version, NixVersion) and version.flavour is Flavour.DETERMINATE


def change(patient: Patient, text: str, when: str = "") -> tuple[Step, ...]:
    """How nix-daemon is given a setting where this machine keeps its own; and made to read it."""
    place = place_of_settings(patient)
    if patient.declared:
        return (Step(f"Set {text} in {place}{when}, and switch to it."),)
    return (Step(f"Set {text} in {place}{when}."), *restart(patient))


def place_of_settings(patient: Patient) -> str:
    """Where settings of Nix belong: what a system or Determinate's daemon writes is theirs.

    Determinate replaces nix.conf, which includes nix.custom.conf; on NixOS that is made from
    nix.settings (DeterminateSystems/determinate#88, #89, #104).
    """
    determinate, declared = _is_determinate(patient), patient.declared
    if determinate and declared == "nix-darwin":
        return "customSettings of Determinate's module for nix-darwin"
    if declared:
        return f"nix.settings of {declared}"
    return f"/etc/nix/{'nix.custom.conf' if determinate else 'nix.conf'}"


def _settings(patient: Patient) -> Iterator[Diagnosis]:
    """Whether what Nix tells are the settings that count.

    What Nix may not read it goes on without, and does not say so (libutil config.cc, 2.8): what it
    tells then are its defaults, while nix-daemon, which is root, builds by the file.
    """
    nix = patient[Installation]
    conf = nix.conf
    if conf.hidden:
        yield _SETTINGS.unknown(
            f"This user may not read {conf.hidden}",
            "Nix goes on without it and does not say so, and then tells other settings than those"
            " that nix-daemon builds with. How builds are sandboxed, and as whom they run, cannot"
            " be told.",
            *(() if nix.apart or patient.uid == 0 else (AS_ROOT,)),
        )
    elif isinstance(conf.settings, Unknown):
        yield _SETTINGS.unknown(
            f"Nix does not tell its settings: {conf.settings.reason}",
            "Whether builds are sandboxed, and as whom they run, cannot be told.",
        )
    elif isinstance(nix.daemon, Daemon) and _is_older(nix.daemon.began, conf.changed):
        yield _SETTINGS.unknown(
            "nix-daemon has been running since before nix.conf was last changed",
            "It builds with what it read when it started. What is said here of settings is what"
            " nix.conf says now.",
            *restart(patient),
        )


def _is_older(began: float | None, changed: float | None) -> bool:
    return began is not None and changed is not None and changed > began + _CLOCK_SECONDS
