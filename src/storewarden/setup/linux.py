# SPDX-License-Identifier: MIT
"""What the service needs where systemd runs: units, drop-ins for what this machine is like."""

import grp
import os
import pwd
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from storewarden.config import ConfigError, load_config_if_there
from storewarden.setup.code import shipped
from storewarden.setup.files import File, SetupError
from storewarden.setup.plan import output_of

USER = "storewarden"
LOCK = "/run/storewarden-setup.lock"
AFTER_A_CHANGE = """\
#   storewarden check-config && sudo systemctl reload storewarden
# After one of audit-log, metrics-textfile or metrics-listen, what the units allow must follow:
#   sudo storewarden setup
"""
"""What the first configuration says to do after a change of it."""
UNITS = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/storewarden.conf"
WATCHER, SOCKET, HELPER = (
    "storewarden.service",
    "storewarden-helper.socket",
    "storewarden-helper.service",
)
_ANY_PYTHON = b"/usr/bin/python3"
_ANY_GROUP = b"nix-users"
_ANY_TEXTFILES = b"/var/lib/prometheus/node-exporter"
_ANY_AUDIT_LOGS = b"/var/log/storewarden"
_FROM_LOOPBACK = b"IPAddressAllow=localhost"
_NOTIFIES_RELOADS = 253


class Mounted(StrEnum):
    """How /nix/store is mounted, as far as a writable view of it goes."""

    PLAIN = "plain"
    """It is a directory of what /nix lies on, perhaps mounted read-only over itself."""
    OWN = "own"
    """It is a mount of something else."""
    OWN_READ_ONLY = "own-read-only"


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which drop-ins there are."""

    systemd: int = 0
    """Its version; 0 is not known."""
    nix_group: str = ""
    """The only group that may ask the Nix daemon; empty where everybody may."""
    store: Mounted = Mounted.PLAIN
    metrics: str = ""
    """From where Prometheus is let in: `localhost`, `any`, or empty for nowhere."""
    textfile: str = ""
    """The directory that the metrics are written to; empty for none."""
    audit_logs: str = os.fsdecode(_ANY_AUDIT_LOGS)
    """The directory that the helper records removals in."""


def this_machine(config: str) -> Machine:
    """Look at the one this runs on; `config` is the configuration file, if it is there yet."""
    text = output_of(["systemctl", "--version"])
    version = re.match(r"systemd (\d+)", text)
    with open("/proc/self/mountinfo", "rb") as file:
        table = os.fsdecode(file.read())
    read_only = os.path.exists("/nix/store") and os.statvfs("/nix/store").f_flag & os.ST_RDONLY
    return Machine(
        int(version[1]) if version else 0,
        _nix_group("/nix/var/nix/daemon-socket"),
        mounted(table, read_only=bool(read_only)),
        *_places(config),
    )


def units(python: str, machine: Machine) -> tuple[File, ...]:
    """All that systemd reads of us, with that interpreter."""
    for path in filter(None, (python, machine.textfile, machine.audit_logs)):
        if not re.fullmatch(r"[A-Za-z0-9/._+-]+", path):
            raise SetupError(f"{path!r} is not a path that can stand in a unit")
    files = [File(SYSUSERS, shipped("systemd/storewarden.sysusers"))]
    for unit in (WATCHER, SOCKET, HELPER):
        text = shipped(f"systemd/{unit}").replace(_ANY_PYTHON, os.fsencode(python))
        files.append(File(f"{UNITS}/{unit}", text))
    chosen = {
        "storewarden-notify-reload": machine.systemd >= _NOTIFIES_RELOADS,
        "storewarden-nix-group": bool(machine.nix_group),
        "storewarden-metrics": bool(machine.metrics),
        "storewarden-textfile": bool(machine.textfile),
        "storewarden-helper-audit-log": machine.audit_logs != Machine().audit_logs,
        "storewarden-helper-store-mount": machine.store is Mounted.OWN,
        "storewarden-helper-store-remount": machine.store is Mounted.OWN_READ_ONLY,
    }
    stands_for = {
        _ANY_PYTHON: python,
        _ANY_GROUP: machine.nix_group,
        _ANY_AUDIT_LOGS: machine.audit_logs,
        _ANY_TEXTFILES: machine.textfile,
        _FROM_LOOPBACK: f"IPAddressAllow={machine.metrics}",
    }
    for name, needed in chosen.items():
        if needed:
            text = shipped(f"systemd/drop-ins/{name}.conf")
            for word, own in stands_for.items():
                text = text.replace(word, os.fsencode(own))
            unit = HELPER if name.startswith("storewarden-helper-") else WATCHER
            files.append(File(f"{UNITS}/{unit}.d/{name}.conf", text))
    return tuple(files)


def start_words(*, changed: bool) -> list[list[str]]:
    """The commands still wanted once the files are right."""
    words = [] if has_user() else [["systemd-sysusers", SYSUSERS]]
    if changed:
        words.append(["systemctl", "daemon-reload"])
    off = [unit for unit in (SOCKET, WATCHER) if _asked("is-enabled", unit) != "enabled"]
    if off:
        words.append(["systemctl", "enable", *off])
    if changed or any(_asked("is-active", unit) != "active" for unit in (SOCKET, WATCHER)):
        # The helper starts when it is asked for; an older one must not answer any more. The socket
        # first: who asks while the helper is told to stop has it started, which cancels the stop.
        words.append(["systemctl", "stop", WATCHER, SOCKET, HELPER])
        # By name: a pattern misses what has ended well, and systemd counts the starts of that too.
        words.append(["systemctl", "reset-failed", WATCHER, SOCKET, HELPER])
        words.append(["systemctl", "start", SOCKET, WATCHER])
    return words


def stop_words(theirs: Collection[str]) -> list[list[str]]:
    """The commands that end all of it, as far as it is there, and is not among those files."""
    ours = {unit: f"{UNITS}/{unit}" for unit in (WATCHER, SOCKET, HELPER)}
    there = [unit for unit, path in ours.items() if os.path.exists(path) and path not in theirs]
    return [["systemctl", "disable", "--now", *there]] if there else []


def inactive() -> list[str]:
    """The units that should be at work and are not."""
    return [unit for unit in (SOCKET, WATCHER) if _asked("is-active", unit) != "active"]


def has_user() -> bool:
    """Whether the watcher's user is there."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def mounted(table: str, *, read_only: bool) -> Mounted:
    """How the store is mounted, from the text of /proc/self/mountinfo."""
    at: dict[str, tuple[str, str]] = {}
    # Any user may have chosen the name of a mount point, with "\r" in it say.
    for line in filter(None, table.split("\n")):
        _, _, device, root, point, *_ = line.split(" ")
        at[point] = (device, root)  # the last one covers those before it
    if "/nix/store" not in at:
        return Mounted.PLAIN
    below = next(point for point in ("/nix", "/") if point in at)
    device, root = at[below]
    over_itself = f"{root.rstrip('/')}{'/nix/store'.removeprefix(below.rstrip('/'))}"
    if at["/nix/store"] == (device, over_itself):
        return Mounted.PLAIN
    return Mounted.OWN_READ_ONLY if read_only else Mounted.OWN


def _asked(question: str, unit: str) -> str:
    return output_of(["systemctl", question, unit]).strip()


def _nix_group(directory: str) -> str:
    """The group that may enter the directory of the daemon's socket, if others may not."""
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        return ""
    if found.st_mode & stat.S_IXOTH or found.st_gid == 0:
        return ""
    try:
        name = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        name = ""
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name) else str(found.st_gid)


def _places(config: str) -> tuple[str, str, str]:
    """From where metrics may be asked for, and where metrics and audit records are written."""
    try:
        found = load_config_if_there(config)
    except ConfigError as cause:
        raise SetupError(f"{cause}; correct it first") from cause
    textfile, audit_log = found.metrics_textfile or "", found.audit_log
    return let_in(found.metrics_listen or ""), os.path.dirname(textfile), os.path.dirname(audit_log)


def let_in(address: str) -> str:
    """Who can reach HOST:PORT, in the words of a unit's IPAddressAllow=."""
    host = address.rpartition(":")[0].strip("[]")
    loopback = host in {"localhost", "::1"} or re.fullmatch(r"127(\.[0-9]{1,3}){3}", host)
    return "localhost" if loopback else "any" if host else ""
