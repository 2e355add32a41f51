# SPDX-License-Identifier: MIT
"""The service's status for Prometheus: as text, as a file for node_exporter, over HTTP.

Names of entries are chosen by builders and are without number, so they are in no metric: which
entry it is says `storewarden status`. Moments are exported, never ages: a file grows old unread.
"""

import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from socketserver import ThreadingTCPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from storewarden import __version__
from storewarden.claims import PROOF
from storewarden.daemon.status import PLACES, WAITS, ServiceStatus, replace_file
from storewarden.errors import StorewardenError
from storewarden.store.entries import EntryKind

Family = type[CounterMetricFamily] | type[GaugeMetricFamily]
Value = Mapping[str, int] | float | None
_BOUNDS = (*map(str, WAITS), "+Inf")
_CONTENT = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = 10
"""How long a client may keep a connection waiting."""
_MOST = 64
"""Connections at once; further ones are closed, for the service needs descriptors itself."""


def exposition(status: ServiceStatus) -> bytes:
    """The status in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_OneStatus(status))
    return generate_latest(registry)


def write_textfile(path: str, status: ServiceStatus) -> None:
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
def answering(address: str, current: Callable[[], ServiceStatus]) -> Iterator[None]:
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

    def __init__(self, status: ServiceStatus) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        return _families(self._status)


class _Answer(BaseHTTPRequestHandler):
    """One request."""

    timeout = _SECONDS
    server_version, sys_version = f"storewarden/{__version__}", ""

    def __init__(self, current: Callable[[], ServiceStatus], *rest: Any) -> None:  # noqa: ANN401 - passed on
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


def _families(status: ServiceStatus) -> Iterator[Metric]:
    """Every metric, also where there is nothing to count: rates and alerts need the zeros."""
    about = {"version": __version__, "mode": status.mode}
    about |= {"store_dir": status.store_dir, "wakes": status.wakes}
    # A file name may hold bytes that are no UTF-8; the text format is UTF-8.
    legible = {name: value.encode(errors="replace").decode() for name, value in about.items()}
    yield InfoMetricFamily("storewarden", "What the service is and does.", legible)
    yield HistogramMetricFamily(
        "storewarden_stranded_to_removed_seconds",
        "How long after its last change an entry was removed.",
        list(zip(_BOUNDS, accumulate(status.waited), strict=True)),
        sum_value=status.waited_seconds,
    )
    for family, name, text, value in _rows(status):
        if isinstance(value, Mapping):
            label = "where" if name == "problem" else "kind"
            metric = family(f"storewarden_{name}", text, labels=[label])
            for member, number in value.items():
                metric.add_metric([str(member)], number)
            yield metric
        else:
            yield family(f"storewarden_{name}", text, value)


def _rows(status: ServiceStatus) -> Iterator[tuple[Family, str, str, Value]]:
    """What each metric but the first is: its family, name, meaning, and value or values."""
    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    text = "When the service started, as a Unix time."
    yield gauge, "start_time_seconds", text, status.started
    text = "When the service last said this, as a Unix time; if long ago, it is gone or hangs."
    yield gauge, "updated_timestamp_seconds", text, status.updated
    text = "When the last whole sweep ended, as a Unix time; not there before the first."
    yield gauge, "last_sweep_timestamp_seconds", text, status.swept
    text = "How long the last whole sweep took."
    yield gauge, "last_sweep_duration_seconds", text, status.sweep_seconds
    text = "When the removal of the entry that is stuck longest was first tried, as a Unix time;"
    text += " not there if none is stuck."
    oldest = min((one.since for one in status.stuck), default=None)
    yield gauge, "stuck_since_timestamp_seconds", text, oldest
    text = "What the last whole sweep found, alive or dead."
    yield gauge, "found_entries", text, dict.fromkeys(EntryKind, 0) | status.found
    text = "Young or claimed entries that are looked at again soon."
    yield gauge, "suspect_entries", text, status.watched
    yield gauge, "stuck_entries", "Entries that should go and could not.", status.stuck_count
    text = "The same by kind, of those that the status lists, which are at most 100."
    listed = Counter(one.kind for one in status.stuck)
    yield gauge, "stuck_listed_entries", text, dict.fromkeys(PROOF, 0) | listed
    yield counter, "sweeps_total", "Whole sweeps.", status.sweeps
    text = "How often the system lost count of the changes, so that a whole sweep was needed."
    yield counter, "overflows_total", text, status.overflows
    text = "Entries removed."
    yield counter, "removed_total", text, dict.fromkeys(PROOF, 0) | status.removed
    text = "Bytes that removals freed on disk."
    yield counter, "removed_bytes_total", text, status.removed_bytes
    text = "What all valid paths take, as registered; not there where that cannot be read."
    yield gauge, "store_registered_bytes", text, status.registered_bytes
    text = "How often the helper kept what was asked for."
    yield counter, "refused_total", text, status.refused
    text = "How often a removal failed, in whole or in part."
    yield counter, "failed_total", text, status.failed
    text = "1 where something is wrong now."
    problems = dict.fromkeys(PLACES, 0) | dict.fromkeys(status.problems, 1)
    yield gauge, "problem", text, problems
