# SPDX-License-Identifier: MIT
"""Who is at work here: nix-daemon, storewarden's service, its helper; and what it recorded."""

import os
import socket
import stat
from contextlib import suppress

from storewarden import auditlog, host, processes
from storewarden.auditlog import Verification
from storewarden.config import DEFAULT_CONFIG, Config
from storewarden.daemon.status import ServiceStatus, is_held, read_status
from storewarden.doctor.bounded import within
from storewarden.doctor.facts import Daemon, Listening, Service, Unknown
from storewarden.errors import StorewardenError

_LISTENS = 0x10000
"""__SO_ACCEPTCON, among the flags in /proc/net/unix (net/unix/af_unix.c)."""
_CONNECT_SECONDS = 5.0
_LOG_SECONDS = 60.0
_UNITS = (
    "/etc/systemd/system/storewarden.service",
    "/Library/LaunchDaemons/org.storewarden.watch.plist",
    DEFAULT_CONFIG,
)


def look_at_daemon(state_dir: str) -> Daemon | None:
    """Who listens at its socket; None if nobody does. `OSError` if it may not be asked."""
    found = host.listener(f"{state_dir}/daemon-socket/socket")
    if found is None:
        return None
    uid, pid = found
    return Daemon(uid, pid, None if pid is None else processes.oldest_daemon())


def look_at_service(config: Config) -> Service:
    """Whether it runs, told as `storewarden status` does, and what it last said."""
    try:
        said = read_status(config.runtime_dir)
    except StorewardenError:
        said = None
    running = within(lambda: is_held(config.runtime_dir))
    user = within(lambda: _user(said)) if running is True else None
    return Service(
        installed=said is not None or any(map(os.path.lexists, _UNITS)),
        running=running,
        said=said,
        owns=user == "root" if isinstance(user, str) else None,
    )


def _user(said: ServiceStatus | None) -> str | None:
    """As whom the process runs that said this; its name may come from a directory service."""
    return processes.running(said.pid).user if said else None


def look_at_helper(path: str, table: str = "/proc/net/unix") -> Listening:
    """What is at its socket. `OSError` where that cannot be told.

    Who connects wakes it, and it says so in its log; therefore the kernel's table of sockets is
    read first. It leaves out those of other network namespaces, and is Linux's: where it does not
    have it, connecting does no harm, because nobody is there, or it cannot be told otherwise.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return Listening.NO_SOCKET
    except FileNotFoundError:
        return Listening.NOTHING
    if path in listeners(table):
        return Listening.YES
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return Listening.SILENT
    return Listening.YES


def listeners(table: str) -> frozenset[str]:
    """The paths of Unix sockets on which somebody listens, as far as that table has them."""
    found = set()
    try:
        with open(table, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            next(file, None)  # the names of the columns
            for line in file:
                # Any user may bind a socket with a newline in its name, which makes other lines.
                with suppress(ValueError):
                    _, _, _, flags, _, _, _, *path = line.rstrip("\n").split(None, 7)
                    if path and int(flags, 16) & _LISTENS:
                        found.update(path)
    except OSError:
        return frozenset()
    return frozenset(found)


def look_at_audit(path: str) -> Verification | Unknown | None:
    """The log verified; None if there is none."""

    def look() -> Verification | None:
        try:
            os.listdir(os.path.dirname(path))  # a log that may not be seen is not absent
        except FileNotFoundError:
            return None
        return auditlog.verify(path) if auditlog.log_files(path) else None

    return within(look, _LOG_SECONDS)
