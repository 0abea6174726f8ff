"""Every query of the dashboard and of the alerts names metrics and labels that a scrape has."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.metrics import looking
from app.metrics.exposition import written
from app.service import Service
from jobs.store import JobStore

ROOT = Path(__file__).parents[2]
# Added by Prometheus to all that it scrapes.
TARGET = {"instance", "job"}
WORDS = {
    "by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset",
    "sum", "max", "min", "avg", "count", "rate", "increase", "histogram_quantile", "time", "topk",
}  # fmt: skip
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")')

Live = dict[str, dict[str, set[str]]]


def dashboard_queries() -> list[tuple[str, str]]:
    dashboard = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
    return [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p.get("targets", ())]


def rules() -> list[dict[str, Any]]:
    text = (ROOT / "docker" / "prometheus" / "alerts.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def selectors(query: str) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """The metrics that a query names, each with its matchers: label, comparison and value."""
    bare = re.sub(r"\[[^\]]*\]", "", GROUPING.sub(" ", query))
    for found in SELECTOR.finditer(bare):
        if found[1] not in WORDS:
            yield found[1], {m[1]: (m[2], m[3][1:-1]) for m in MATCHER.finditer(found[2] or "")}


def _family(name: str) -> str:
    """A metric without what a histogram's samples are called besides."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def faults(query: str, live: Live) -> list[str]:
    """What of a query a scrape doesn't have."""
    found = []
    labels: set[str] = set(TARGET)
    for name, matchers in selectors(query):
        if name not in live and name != "up":
            found.append(f"no metric {name}")
            continue
        known = live.get(name, {})
        labels |= known.keys()
        for label, (how, value) in matchers.items():
            if label not in known and label not in TARGET:
                found.append(f"{name} has no label {label}")
            elif how == "=" and label in known and value not in known[label]:
                found.append(f"{name} has no {label}={value}, but {sorted(known[label])}")
    for group in GROUPING.findall(query):
        for label in filter(None, (part.strip() for part in group.split(","))):
            if label not in labels:
                found.append(f"nothing has the label {label}")
    return found


@pytest.fixture(scope="module")
def live(client: TestClient, picture: bytes) -> Live:
    """The metrics of a service in which something happened, with the values of their labels."""
    patch = pytest.MonkeyPatch()
    patch.setattr("jobs.happenings.SETTLED", timedelta(0))
    patch.setattr(looking, "FRESH_S", 0.0)
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    store: JobStore = service.store
    index = next(iter(service.catalogue)).id
    service.store.workers.heartbeat("a-worker", {"engine": "ready", "indexes": [index]})
    for code in (None, "time-limit"):
        assert client.post("/v1/attributions", files={"image": ("p.png", picture)}).status_code == 202
        (job,) = store.leases.claim("a-worker", 1, [index])
        timings = {"queue_wait_ms": 1, "claim_ms": 1, "decode_ms": 1, "engine_ms": 1}
        assert (
            store.leases.fail(job.token, "No.", code) if code else store.leases.finish(job.token, {}, timings)
        )
    service.meters.request("/", "GET", 500, 0.01)
    service.meters.round("sweep", True)
    _decide(client, service)
    try:
        text = written(service.meters.registry, "")[0].decode()
    finally:
        patch.undo()
    live: Live = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = live.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return live


def _decide(client: TestClient, service: Service) -> None:
    (job, *_) = service.store.list(limit=1).jobs
    decision = service.store.decisions.create("local", job.id, "publish", 1, None)
    service.store.decisions.settle(decision.id, {"outcome": "review"}, None)


def test_every_query_of_the_dashboard_finds_what_it_asks_for(live: Live) -> None:
    queries = dashboard_queries()
    assert len(queries) > 20
    assert {(title, query): faults(query, live) for title, query in queries if faults(query, live)} == {}


def test_every_metric_is_on_the_dashboard_or_behind_an_alert(live: Live) -> None:
    queries = [query for _, query in dashboard_queries()] + [rule["expr"] for rule in rules()]
    shown = {_family(name) for query in queries for name, _ in selectors(query)}
    told = {_family(name) for name in live if name.startswith("das_")}
    assert told - shown == set()


def test_every_alert_finds_what_it_asks_for_and_says_what_to_do(live: Live) -> None:
    told = (ROOT / "docs" / "deployment.md").read_text()
    for rule in rules():
        assert faults(rule["expr"], live) == [], rule["alert"]
        assert len(rule["annotations"]["description"]) > 60, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in told, f"docs/deployment.md doesn't name {rule['alert']}"


def test_every_metric_is_documented(live: Live) -> None:
    told = (ROOT / "docs" / "deployment.md").read_text()
    for name in live:
        base = _family(name)
        assert base.startswith("process_") or f"`{base}" in told, base


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sum(das_nowhere)", "no metric das_nowhere"),
        ('max(das_jobs{owner="ada"})', "das_jobs has no label owner"),
        ('rate(das_part_up{part="cellar"}[5m])', "das_part_up has no part=cellar"),
        ("max by (owner) (das_jobs)", "nothing has the label owner"),
    ],
)
def test_what_is_wrong_with_a_query_is_found(query: str, fault: str, live: Live) -> None:
    assert any(fault in said for said in faults(query, live)), faults(query, live)


def test_the_panels_have_their_places(live: Live) -> None:
    dashboard = json.loads((ROOT / "docker" / "grafana" / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
