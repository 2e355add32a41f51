# SPDX-License-Identifier: MIT
"""Nix's database kept open by nix-daemon, where that is what it takes to read it.

Before Nix 2.22 an ordinary user can read it only while some Nix process has it open, as those that
build or collect have, on and off. A worker has it for as long as its client is connected: it opens
the store before it reads what the client says (daemon.cc, 2.8.1, 2.26.3 and 2.34.6).
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storewarden.store.store import Store

_HELLO = struct.pack("<4Q", 0x6E697863, 0x115, 0, 0)
"""All that a client of protocol 1.21 says before it asks for anything (worker-protocol.hh)."""
_SECONDS = 1.0
"""For which an answer is waited for."""


@contextmanager
def database_kept_open(store: Store) -> Iterator[None]:
    """While inside, an ordinary user is a client of nix-daemon, if there is one that lets them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        if os.geteuid() != 0:
            client.settimeout(_SECONDS)
            with suppress(OSError):
                client.connect(f"{store.state_dir}/daemon-socket/socket")
                client.sendall(_HELLO)
                client.recv(1)
        yield
