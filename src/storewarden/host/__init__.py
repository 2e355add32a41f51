# SPDX-License-Identifier: MIT
"""The only place that asks which system this is. Standard library only.

`linux` and `darwin` have the same functions with the same types; None always means "cannot be
told here".
"""

import os
import socket
import sys

from storewarden.host.tables import Flock, Mount, exclusive_holders, mount_of, unfit

if sys.platform == "darwin":
    from storewarden.host.darwin import *  # noqa: F403 - whatever it has, linux has as well
else:
    from storewarden.host.linux import *  # noqa: F403 - likewise

__all__ = ["RESTART_HELPER", "Flock", "Mount", "exclusive_holders", "listener", "mount_of", "unfit"]

RESTART_HELPER = "sudo systemctl restart storewarden-helper.service"
if sys.platform == "darwin":
    RESTART_HELPER = "sudo launchctl kickstart -k system/org.storewarden.helper"
_CONNECT_SECONDS = 5.0


def listener(path: str) -> tuple[int, int | None] | None:
    """Uid and pid of who listens at that Unix socket, as `peer` has them; None where nobody does.

    `OSError` where it cannot be reached.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            os.stat(path)  # first, because connect() has errors of its own for a long path
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return peer(connection)  # noqa: F405 - one of the two has it
