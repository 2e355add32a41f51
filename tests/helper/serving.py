# SPDX-License-Identifier: MIT
"""The helper as a real process behind a real socket, and clients with a uid of their own."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGTERM
from typing import Any

import pytest

from helper.bench import log_of, request
from helper.child import become_user, in_child
from stand_in import write_answering_nix
from storewarden.client import encode_request
from storewarden.strict_json import load
from storewarden.throwaway import ThrowawayStore

ROOT = os.geteuid() == 0
CLIENT = 65534 if ROOT else os.geteuid()
"""The uid that is allowed to ask."""
HELPER = (sys.executable, "-I", "-m", "storewarden.helper")
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What passes a listening socket on, as systemd does, and becomes that command."""
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Helper:
    """A helper that serves."""

    process: "subprocess.Popen[str]"
    socket: str

    def ask(self, data: bytes, uid: int = CLIENT) -> list[Line]:
        """What it answers to these bytes, sent by that user and followed by nothing more."""
        if uid == os.geteuid():
            return exchange(self.socket, data)
        lines: list[Line] = in_child(lambda: exchange(self.socket, data, uid))
        return lines


def exchange(path: str, data: bytes, uid: int | None = None) -> list[Line]:
    """Every line that comes back; as the user `uid`, for good, if one is named."""
    if uid is not None:
        become_user(uid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return list(_lines(connection))


def _lines(connection: socket.socket) -> Iterator[Line]:
    with connection.makefile("rb") as file, contextlib.suppress(ConnectionResetError):
        # What was sent and never read makes the end a reset, after all that was answered.
        for line in file:
            answer = load(line)
            assert isinstance(answer, dict)
            yield answer


def command(place: ThrowawayStore, *words: str, allow: Sequence[int] = (CLIENT,)) -> list[str]:
    """The helper's command line for that store, with a stand-in for Nix."""
    base = place.state_dir.removesuffix("/nix/var/nix")
    nix = f"{base}/nix-that-knows-nothing"
    if not os.path.exists(nix):
        write_answering_nix(nix)
    return [
        *HELPER,
        *(word for uid in allow for word in ("--allow-uid", str(uid))),
        *("--socket", socket_of(place), "--store-dir", place.store_dir.path),
        *("--state-dir", place.state_dir, "--nix", nix, "--audit-log", log_of(place)),
        *("--min-age", "0", "--build-group", "no-such-group", *words),
    ]


def socket_of(place: ThrowawayStore) -> str:
    """Where the helper of that store listens."""
    return place.state_dir.removesuffix("/nix/var/nix") + "/run/helper.sock"


@contextlib.contextmanager
def serving(
    place: ThrowawayStore, *words: str, allow: Sequence[int] = (CLIENT,)
) -> Iterator[Helper]:
    """While a helper serves that store; it must end well."""
    with started(command(place, *words, allow=allow)) as process:
        try:
            yield Helper(process, socket_of(place))
        finally:
            process.send_signal(SIGTERM)
        assert process.wait(20) == 0


@contextlib.contextmanager
def started(words: Sequence[str], **more: Any) -> Iterator["subprocess.Popen[str]"]:  # noqa: ANN401 - Popen's
    """While that helper runs, from when it says that it serves."""
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd="/", **more) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if "can be changed by others" in line:
                pytest.skip(f"the helper refuses to run from here: {line}")
            assert "serving" in line, line + process.stderr.read()
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ended(words: Sequence[str], **more: Any) -> tuple[int, str]:  # noqa: ANN401 - run's
    """With which status and last words a helper ends that does not come to serve."""
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, timeout=20, cwd="/", **more
    )
    if "where this program is, can be changed by others" in done.stderr:
        pytest.skip(f"the helper refuses to run from here: {done.stderr}")
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def stale_lock(place: ThrowawayStore, name: str = "x") -> str:
    """Debris that the helper removes for anybody, whoever runs it."""
    lock = f"{place.invent(name).base_name}.lock"
    place.add_lock(lock)
    return lock


def line_for(place: ThrowawayStore, *base_names: str) -> bytes:
    """The request for these entries as one line."""
    return encode_request(tuple(request(place, name) for name in base_names))
