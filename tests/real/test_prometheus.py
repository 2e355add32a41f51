# SPDX-License-Identifier: MIT
"""A real Prometheus and a real node_exporter: an alert comes for stuck debris, and goes with it."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from programs import FLEET, answered, eventually, free_port, program, running
from storewarden.daemon.metrics import answering, write_textfile
from storewarden.daemon.status import ServiceStatus, Stuck
from test_fleet import queries

pytestmark = pytest.mark.slow


@dataclass(slots=True)
class Fleet:
    """One service that is scraped both ways."""

    prometheus: int
    textfile: str
    status: ServiceStatus

    def say(self, status: ServiceStatus) -> None:
        """As the service does: for the listener, and into the file."""
        self.status = replace(status, updated=time.time())
        write_textfile(self.textfile, self.status)

    def firing(self) -> set[tuple[str, str]] | None:
        """Alerts that fire, each with the job it is about."""
        found = answered(self.prometheus, "/api/v1/alerts")
        return found and {
            (one["labels"]["alertname"], one["labels"]["job"])
            for one in found["alerts"]
            if one["state"] == "firing"
        }

    def values(self, query: str) -> list[dict[str, dict[str, str]]]:
        """The vector that it gives now."""
        found = answered(self.prometheus, f"/api/v1/query?query={quote(query)}")
        return found["result"] if found else []


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    prometheus = program("prometheus", "prometheus")
    exporter = program("prometheus-node-exporter", "prometheus-node-exporter")
    server, listener, node = free_port(), free_port(), free_port()
    (tmp_path / "textfile").mkdir()
    jobs = {"storewarden": listener, "node": node}
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{FLEET}/alerts.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in jobs.items()
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML too
    now = time.time()
    well = ServiceStatus(7, now, now, "repair", "/nix/store", "inotify", sweeps=1, swept=now)
    well.registered_bytes = 1
    whole = Fleet(server, f"{tmp_path}/textfile/storewarden.prom", well)
    whole.say(well)
    with ExitStack() as stack:
        stack.enter_context(answering(f"127.0.0.1:{listener}", lambda: whole.status))
        stack.enter_context(
            running(
                exporter,
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={tmp_path}/textfile",
                f"--web.listen-address=127.0.0.1:{node}",
            )
        )
        stack.enter_context(
            running(
                prometheus,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/storage",
                f"--web.listen-address=127.0.0.1:{server}",
            )
        )
        yield whole


def test_an_alert_fires_for_stuck_debris_and_clears_when_it_is_gone(fleet: Fleet) -> None:
    well = fleet.status
    eventually(lambda: len(fleet.values("storewarden_stuck_entries == 0")) == 2)
    eventually(lambda: len(fleet.values("node_textfile_mtime_seconds")) == 1)
    assert fleet.firing() == set()

    stuck = Stuck("aaa-gone", "output", time.time() - 3600, ("a mount lies in it",))
    fleet.say(replace(well, stuck=(stuck,), stuck_count=1, problems={"fuse": "too many"}))
    alerts = {(name, job) for name in ("StorewardenStuck", "StorewardenFuse") for job in JOBS}
    eventually(lambda: fleet.firing() == alerts)
    for query in queries():
        eventually(lambda query=query: bool(fleet.values(query)))  # type: ignore[misc]

    fleet.say(well)
    eventually(lambda: fleet.firing() == set())
    assert len(fleet.values("storewarden_stuck_entries == 0")) == 2


JOBS = ("storewarden", "node")
