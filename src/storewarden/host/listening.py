# SPDX-License-Identifier: MIT
"""The helper's socket: handed over by systemd, or bound here; and what systemd is told."""

import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_FIRST_LISTEN_FD = 3


@contextmanager
def listening(path: str, allowed: Sequence[int]) -> Iterator[socket.socket]:
    """The socket that systemd hands over, or else one bound here and removed at the end."""
    if os.environ.pop("LISTEN_PID", None) == str(os.getpid()):
        with _handed_over() as listener:
            yield listener
        return
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.mkdir(directory)
        os.chmod(directory, 0o755)  # noqa: S103 - clients must get through, whatever the umask
    _remove_stale_socket(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        try:
            # One uid owns it; with several, the peer's credentials alone decide.
            if len(set(allowed)) == 1:
                os.chown(path, allowed[0], -1)
                os.chmod(path, 0o600)
            else:
                os.chmod(path, 0o666)  # noqa: S103 - see above
            listener.listen(16)
            yield listener
        finally:
            os.unlink(path)


def notify(state: str) -> None:
    """Tell systemd, where it wants to be told; a leading @ is an abstract address."""
    if place := os.environ.get("NOTIFY_SOCKET"):
        address = f"\0{place[1:]}" if place.startswith("@") else place
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(state.encode(), address)


def _handed_over() -> socket.socket:
    """What systemd gives; `OSError` unless it is one Unix stream socket that listens."""
    count = os.environ.pop("LISTEN_FDS", "")
    try:
        found = socket.socket(fileno=_FIRST_LISTEN_FD)
        kind = (found.family, found.type, found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        kind = None
    if count != "1" or kind != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        raise OSError("what is handed over must be one Unix stream socket that listens")
    return found


def _remove_stale_socket(path: str) -> None:
    """Make room for our socket, where what is there is a socket that nobody serves."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"{path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
        raise OSError(f"another helper serves {path}")
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        return
