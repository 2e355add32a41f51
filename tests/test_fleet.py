# SPDX-License-Identifier: MIT
"""docs/fleet: what it asks for is exported, and Prometheus' own tools understand it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon.test_metrics import BUSY
from programs import FLEET, promtool
from storewarden.daemon.metrics import exposition


def text_of(name: str) -> str:
    return Path(FLEET, name).read_text(encoding="utf-8")


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", text_of("alerts.yml"), re.MULTILINE)


def queries() -> Iterator[str]:
    """What the dashboard asks for, with its variables set to all."""
    for panel in json.loads(text_of("dashboard.json"))["panels"]:
        for target in panel["targets"]:
            some = target["expr"].replace("$__rate_interval", "1m")
            yield re.sub(r"\$(job|instance)\b", ".*", some)


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", f"{FLEET}/alerts.yml")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(alerts())} rules found" in done.stdout


def test_every_alert_fires_and_clears() -> None:
    done = promtool("test", "rules", f"{FLEET}/alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_is_tested_both_ways_and_explained(alert: str) -> None:
    tested = text_of("alerts_test.yml")
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", tested)
    assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", tested)
    assert f"| `{alert}` |" in text_of("README.md")


def test_promtool_takes_what_the_dashboard_asks_for(tmp_path: Path) -> None:
    rules = [{"record": f"q{n}", "expr": query} for n, query in enumerate(queries())]
    # JSON is YAML too.
    (tmp_path / "q.yml").write_text(json.dumps({"groups": [{"name": "q", "rules": rules}]}))
    done = promtool("check", "rules", f"{tmp_path}/q.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$" not in "".join(queries())


def test_the_dashboard_s_panels_have_ids_places_and_titles_of_their_own() -> None:
    panels = json.loads(text_of("dashboard.json"))["panels"]
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert (
        len(panels) == len({one["id"] for one in panels}) == len({one["title"] for one in panels})
    )


def test_what_a_variable_begins_with_has_a_text_and_a_value_as_grafana_s_schema_wants() -> None:
    variables = json.loads(text_of("dashboard.json"))["templating"]["list"]
    begun = [one["current"] for one in variables if "current" in one]
    assert begun
    assert all({"text", "value"} <= one.keys() for one in begun)


def exported() -> set[str]:
    families = text_string_to_metric_families(exposition(BUSY).decode())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("name", ["alerts.yml", "alerts_test.yml", "dashboard.json", "README.md"])
def test_every_metric_that_is_named_is_exported(name: str) -> None:
    named = set(re.findall(r"\bstorewarden_\w+", text_of(name)))
    assert named
    assert named <= exported()


def test_every_metric_is_explained() -> None:
    assert {name for name in exported() if name not in text_of("README.md")} == set()
