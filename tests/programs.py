# SPDX-License-Identifier: MIT
"""Real programs that some tests need, and their place on this machine."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

FLEET = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/docs/fleet"


def need(what: str, reason: str | None) -> None:
    """Skip the test if there is a reason why that cannot be had here; in CI, fail."""
    if reason is not None and os.environ.get("STOREWARDEN_REQUIRE_REAL_NIX") == "1":
        pytest.fail(f"{what} is required, but {reason}")
    if reason is not None:
        pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of a program of Debian's; without it the test is skipped, in CI it fails."""
    place = shutil.which(name)
    if place is None:
        need(name, f"there is no {name} here (on Debian: apt-get install {package})")
    return str(place)


def promtool(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own checker to its end."""
    command = [program("promtool", "prometheus"), *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, check=False
    )


def free_port() -> int:
    """One that nobody listened on a moment ago."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


@contextmanager
def running(*command: str) -> Iterator[None]:
    """A server for as long as the test needs it."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        try:
            yield
        finally:
            process.kill()


def answer(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Status and body of one GET."""
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answered(port: int, path: str) -> Any:  # noqa: ANN401 - JSON
    """What Prometheus' API gives there, or None while it does not."""
    try:
        status, body = answer(port, path)
    except ConnectionError:
        return None
    return json.loads(body)["data"] if status == 200 else None


def eventually(what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for it; fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)
