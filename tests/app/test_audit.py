"""The audit log over HTTP."""

import csv
import io
import json

import pytest
from starlette.testclient import TestClient

from app.service import Service
from jobs.audit import Actor
from jobs.credentials import Scope
from jobs.keys import NewKey
from jobs.store import JobStore


@pytest.fixture
def admin(client: TestClient) -> dict[str, str]:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    made = service.keys.create(NewKey(name="an operator", scopes=frozenset({Scope.ADMIN})))
    return {"Authorization": f"Bearer {made.secret}"}


def test_it_is_read_by_who_administers(client: TestClient, store: JobStore, admin: dict[str, str]) -> None:
    store.audit.write(Actor("das_a", "req_1"), "thing.done", "one")
    store.audit.write(Actor("das_b"), "thing.undone", "two", "refused")
    items = client.get("/v1/audit-events?action=thing", headers=admin).json()["items"]
    assert [(one["action"], one["actor"], one["object"], one["outcome"]) for one in items] == [
        ("thing.undone", "das_b", "two", "refused"),
        ("thing.done", "das_a", "one", "done"),
    ]
    first = client.get("/v1/audit-events?action=thing&limit=1", headers=admin).json()
    rest = client.get(f"/v1/audit-events?action=thing&cursor={first['next_cursor']}", headers=admin).json()
    assert [one["object"] for one in rest["items"]] == ["one"]
    for path in ("/v1/audit-events", "/v1/audit-events.csv", "/v1/audit-events.jsonl"):
        assert client.get(path).status_code == 401
        assert client.get(f"{path}?acton=x", headers=admin).status_code == 422
    assert client.get("/v1/audit-events?cursor=x", headers=admin).status_code == 422


def test_exports_hold_all_and_no_formulas(client: TestClient, store: JobStore, admin: dict[str, str]) -> None:
    store.audit.write(Actor("das_a", "-1+1"), "sheet.done", "=HYPERLINK(1)", note="@x")
    table = client.get("/v1/audit-events.csv?action=sheet", headers=admin)
    assert table.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(table.text))
    assert (row["object"], row["request_id"]) == ("'=HYPERLINK(1)", "'-1+1")
    assert json.loads(row["details"]) == {"note": "@x"}
    (line,) = client.get("/v1/audit-events.jsonl?action=sheet", headers=admin).text.splitlines()
    assert json.loads(line)["object"] == "=HYPERLINK(1)"
