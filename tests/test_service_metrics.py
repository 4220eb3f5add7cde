"""What a running agent exposes, and that dashboard, alert rules and page speak of nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mqtt_world import needs_mosquitto, until
from prometheus_client.parser import text_string_to_metric_families

from agent.mqtt.broker import LocalBroker

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "docs/grafana/stillwatch.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "docs/grafana/alerts.yml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/service.md").read_text(encoding="utf-8")
NAME = re.compile(r"\b(?:stillwatch|process)_[a-z0-9_]+\b")
PROMETHEUS_OWN = {"job", "instance", "le"}

pytestmark = [needs_mosquitto, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Exposed:
    """names: what a query may name. labels: by name, of those that have samples."""

    names: frozenset[str]
    labels: dict[str, frozenset[str]]


def read(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exposed]:
    """Of an agent with a camera that changes its scene, and a broker."""
    folder, port = tmp_path_factory.mktemp("exposed"), free_port()
    with LocalBroker() as broker:
        config = {
            "mqtt": {"url": broker.url},
            "metrics": {"port": port},
            "cameras": {"front": {"source": "scene:street?seed=2&camera=cut&fps=5&width=320&height=180"}},
        }
        (folder / "agent.yaml").write_text(json.dumps(config))
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "run", "--config", "agent.yaml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
        try:
            until(lambda: "stillwatch_event_latency_seconds_bucket" in read(port, "/metrics")[1], "an event")
            assert read(port, "/healthz")[0] == 200
            until(lambda: read(port, "/readyz")[0] == 200, "readiness")
            families = list(text_string_to_metric_families(read(port, "/metrics")[1]))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()
    names, labels = set(), {}
    for family in families:
        if family.name.endswith("_created"):  # when a counter began; the client library's own
            continue
        counter = "_total" if family.type == "counter" else ""
        names |= {f"{family.name}{counter}", *(sample.name for sample in family.samples)}
        for sample in family.samples:
            labels[sample.name] = labels.get(sample.name, frozenset()) | set(sample.labels)
    yield Exposed(frozenset(names), labels)


def dashboard_queries() -> list[str]:
    variables = [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if isinstance(one["query"], dict)]
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())] + variables


def alert_queries() -> list[str]:
    return [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


@pytest.mark.parametrize("queries", [dashboard_queries(), alert_queries()], ids=["dashboard", "alerts"])
def test_every_query_is_about_what_a_running_agent_tells(exposed: Exposed, queries: list[str]) -> None:
    assert len(queries) > 10
    assert {name for query in queries for name in NAME.findall(query)} - exposed.names == set()
    for query in queries:
        for name, wanted in selectors(query):
            if name in exposed.labels:
                assert wanted - exposed.labels[name] - PROMETHEUS_OWN == set(), query


def test_a_query_about_something_else_would_be_found(exposed: Exposed) -> None:
    assert "stillwatch_frames_dropped" not in exposed.names
    ((name, labels),) = selectors('stillwatch_frames_total{mode="full"}')
    assert labels - exposed.labels[name] == {"mode"}


def test_the_page_names_every_metric_of_ours_or_a_page_that_does(exposed: Exposed) -> None:
    pages = PAGE + "".join((ROOT / f"docs/{name}.md").read_text() for name in ("inspect", "jetson", "describer"))
    bases = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed.names if name.startswith("still")}
    assert {name for name in bases if f"`{name}`" not in pages} == set()
    assert set(NAME.findall(PAGE)) - exposed.names - bases == set()


def test_the_names_follow_the_rules_of_prometheus(exposed: Exposed) -> None:
    ours = [name for name in exposed.names if name.startswith("stillwatch_")]
    assert [name for name in ours if re.search(r"percent|_ms\b|_fps|_age|_kb|_mb\b", name)] == []


def test_the_dashboard_s_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], Any] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"] and x < 24
