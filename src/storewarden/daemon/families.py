# SPDX-License-Identifier: MIT
"""What the service's status is in Prometheus' terms. Pure.

Names of entries are chosen by builders and are without number, so they are in no metric: which
entry it is says `storewarden status`. Moments are exported, never ages: a file grows old unread.
"""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from storewarden import __version__
from storewarden.claims import PROOF
from storewarden.daemon.status import Status
from storewarden.store.entries import EntryKind

PLACES = (
    "store",
    "nix",
    "helper",
    "leftovers",
    "put-back",
    "configuration",
    "fuse",
    "wakes",
    "status",
    "metrics-textfile",
    "metrics-listen",
)
"""Where the service may have problems (`Status.problems`)."""


def families(status: Status) -> Iterator[Metric]:
    """Every metric, also where there is nothing to count: rates and alerts need the zeros."""
    about = {"version": __version__, "mode": status.mode}
    about |= {"store_dir": status.store_dir, "wakes": status.wakes}
    # A file name may hold bytes that are no UTF-8; the text format is UTF-8.
    legible = {name: value.encode(errors="replace").decode() for name, value in about.items()}
    yield InfoMetricFamily("storewarden", "What the service is and does.", legible)
    yield from _moments(status)
    yield from _entries(status)
    yield from _since_start(status)
    yield _labelled(
        GaugeMetricFamily(
            "storewarden_problem", "1 where something is wrong now.", labels=["where"]
        ),
        dict.fromkeys(PLACES, 0) | dict.fromkeys(status.problems, 1),
    )


def _moments(status: Status) -> Iterator[Metric]:
    gauge = GaugeMetricFamily
    text = "When the service started, as a Unix time."
    yield gauge("storewarden_start_time_seconds", text, status.started)
    text = "When the service last said this, as a Unix time; if long ago, it is gone or hangs."
    yield gauge("storewarden_updated_timestamp_seconds", text, status.updated)
    text = "When the last whole sweep ended, as a Unix time; not there before the first."
    yield gauge("storewarden_last_sweep_timestamp_seconds", text, status.swept)
    text = "How long the last whole sweep took."
    yield gauge("storewarden_last_sweep_duration_seconds", text, status.sweep_seconds)
    text = "When the removal of the entry that is stuck longest was first tried, as a Unix time;"
    text += " not there if none is stuck."
    oldest = min((one.since for one in status.stuck), default=None)
    yield gauge("storewarden_stuck_since_timestamp_seconds", text, oldest)


def _entries(status: Status) -> Iterator[Metric]:
    text = "What the last whole sweep found, alive or dead."
    found = GaugeMetricFamily("storewarden_found_entries", text, labels=["kind"])
    yield _labelled(found, dict.fromkeys(EntryKind, 0) | dict(status.found))
    text = "Young or claimed entries that are looked at again soon."
    yield GaugeMetricFamily("storewarden_suspect_entries", text, status.watched)
    text = "Entries that should go and could not."
    yield GaugeMetricFamily("storewarden_stuck_entries", text, status.stuck_count)
    text = "The same by kind, of those that the status lists, which are at most 100."
    listed: dict[str, int] = dict.fromkeys(PROOF, 0)
    for one in status.stuck:
        listed[one.kind] = listed.get(one.kind, 0) + 1
    stuck = GaugeMetricFamily("storewarden_stuck_listed_entries", text, labels=["kind"])
    yield _labelled(stuck, listed)


def _since_start(status: Status) -> Iterator[Metric]:
    counter = CounterMetricFamily
    yield counter("storewarden_sweeps_total", "Whole sweeps.", status.sweeps)
    text = "How often the system lost count of the changes, so that a whole sweep was needed."
    yield counter("storewarden_overflows_total", text, status.overflows)
    removed = counter("storewarden_removed_total", "Entries removed.", labels=["kind"])
    yield _labelled(removed, dict.fromkeys(PROOF, 0) | dict(status.removed))
    text = "Bytes that removals freed on disk."
    yield counter("storewarden_removed_bytes_total", text, status.removed_bytes)
    text = "How often the helper kept what was asked for."
    yield counter("storewarden_refused_total", text, status.refused)
    text = "How often a removal failed, in whole or in part."
    yield counter("storewarden_failed_total", text, status.failed)


def _labelled(family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, int]) -> Metric:
    for label, value in values.items():
        family.add_metric([str(label)], value)
    return family
