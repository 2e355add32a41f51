# SPDX-License-Identifier: MIT
"""The service's status for Prometheus: as text, as a file for node_exporter, over HTTP."""

import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from storewarden import __version__
from storewarden.daemon.families import families
from storewarden.daemon.replacing import replace_file
from storewarden.daemon.status import Status
from storewarden.errors import StorewardenError

_CONTENT = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 10
"""How long a client may keep a connection waiting."""
_MOST = 64
"""Connections at once; further ones are closed, for the service needs descriptors itself."""


def exposition(status: Status) -> bytes:
    """The status in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_OneStatus(status))
    return generate_latest(registry)


def write_textfile(path: str, status: Status) -> None:
    """Replace the file for node_exporter's textfile collector; `StorewardenError` if it cannot."""
    try:
        replace_file(path, exposition(status))
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise StorewardenError(
            f"cannot write the metrics to {path}: {reason}; let the service's user write into its"
            " directory, or change metrics-textfile"
        ) from cause


@contextmanager
def listening(address: str, current: Callable[[], Status]) -> Iterator[None]:
    """Serve /metrics at HOST:PORT or [HOST]:PORT, and nowhere else, until the context ends.

    Each answer is of what `current` then gives. `StorewardenError` if it cannot listen there.
    """
    host, _, port = address.rpartition(":")
    try:
        name = host.removeprefix("[").removesuffix("]")
        (family, *_, place), *_ = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
        server = _Server(family, place, partial(_Answer, current))
    except (OSError, ValueError, OverflowError) as cause:
        reason = (getattr(cause, "strerror", None) or str(cause)).lower()
        raise StorewardenError(
            f"cannot listen for Prometheus on {address}: {reason}; change metrics-listen"
        ) from cause
    with server:
        # A short poll, for the end of the service waits for it.
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _OneStatus(Collector):
    """What a registry asks for its metrics."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        return families(self._status)


class _Answer(BaseHTTPRequestHandler):
    """One request."""

    timeout = _SECONDS
    server_version, sys_version = f"storewarden/{__version__}", ""

    def __init__(self, current: Callable[[], Status], *rest: Any) -> None:  # noqa: ANN401 - passed on
        self._current = current  # first: the base class answers in its constructor
        super().__init__(*rest)

    def do_GET(self) -> None:
        """/metrics, and nothing else."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="What there is, is at /metrics.")
            return
        text = exposition(self._current())
        self.send_response(200)
        self.send_header("Content-Type", _CONTENT)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class'
        """A scrape is no event for the service's log."""


class _Server(ThreadingTCPServer):
    """A thread a connection. `HTTPServer` itself would ask the DNS for this host's name."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = _MOST

    def __init__(
        self, family: socket.AddressFamily, place: tuple[Any, ...], answer: type | partial[Any]
    ) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(_MOST)
        super().__init__(place, answer)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - passed on
        """Answer in a thread of its own, while there are not too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - passed on
        """The thread's work."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up too early is no event either."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
