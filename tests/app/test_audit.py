"""The audit log: what is done over HTTP and recorded, and reading it there."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.service import Service
from app.visibility import LEVELS
from jobs.audit import Actor, AuditFilters
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


Recorded = Callable[[], list[tuple[str, str, str | None, str]]]


@pytest.fixture
def recorded(store: JobStore) -> Recorded:
    """What was recorded since the test began: action, actor, object and outcome, oldest first."""
    (before,) = [one.id for one in store.audit.list(limit=1).events] or [""]

    def recorded() -> list[tuple[str, str, str | None, str]]:
        events = [one for one in store.audit.list(limit=100).events if one.id > before]
        return [(one.action, one.actor, one.object, one.outcome) for one in reversed(events)]

    return recorded


def test_what_is_done_over_http_is_recorded_with_its_request(
    client: TestClient,
    store: JobStore,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    recorded: Recorded,
    admin: dict[str, str],
) -> None:
    by = admin["Authorization"][7:23]
    job = ask(prompt="a very particular prompt", client_tag="a particular tag")["id"]
    work_off()
    rules = [{"code": "any-share", "outcome": "block", "when": {"top.share": {"above": 0}}}]
    policy = {"policy": "recorded", "rules": rules}
    client.post("/v1/policies", json={"policy": policy, "dry_run": True}).raise_for_status()
    client.post("/v1/policies/recorded/activate", json={"version": 1}).raise_for_status()
    decision = client.post("/v1/decisions", json={"policy": "recorded", "attribution": job}).json()
    review = {"outcome": "clear", "note": "a particular note"}
    client.post(decision["links"]["self"] + "/review", json=review).raise_for_status()
    client.get(f"/v1/attributions/{job}/report.json", headers={"X-Request-Id": "req_mine"})
    client.get(f"/v1/attributions/{job}/image").raise_for_status()
    period = {"from": "2020-01-01", "to": "2100-01-01"}
    client.get("/v1/statements", params=period).raise_for_status()
    client.delete(f"/v1/attributions/{job}").raise_for_status()
    made = client.post("/v1/api-keys", json={"name": "=a key", "scopes": ["ask"]}, headers=admin).json()
    client.delete(f"/v1/api-keys/{made['id']}", headers=admin).raise_for_status()
    (index,) = (one["id"] for one in client.get("/v1/indexes").json()["items"])
    assert recorded() == [
        ("key.created", "operator's shell", by, "done"),
        ("policy.stored", "local", "recorded", "done"),
        ("policy.activated", "local", "recorded", "done"),
        ("decision.reviewed", "local", decision["id"], "done"),
        ("report.read", "local", job, "done"),
        ("statement.made", "local", index, "done"),
        ("question.erased", "local", job, "done"),
        ("key.created", by, made["prefix"], "done"),
        ("key.revoked", by, made["prefix"], "done"),
    ]
    (report,) = store.audit.list(AuditFilters(action="report", object=job)).events
    assert (report.request_id, report.details) == ("req_mine", {"kind": "json"})
    told = client.get("/v1/audit-events.jsonl", headers=admin).text
    for secret in ("particular", made["secret"], "=a key"):
        assert secret not in told


def test_signing_in_is_recorded_and_being_refused_once_in_a_while(
    client: TestClient, recorded: Recorded, admin: dict[str, str]
) -> None:
    secret = admin["Authorization"].removeprefix("Bearer ")
    own = {"Accept": "text/html", "Origin": "http://127.0.0.1:8000"}

    def sign_in(key: str) -> int:
        with_key = client.post("/sign-in", data={"key": key}, headers=own, follow_redirects=False)
        client.cookies.clear()
        return with_key.status_code

    wrong = secret[:-3] + ("AAA" if secret[-3:] != "AAA" else "BBB")
    unknown = f"das_{12 * '2'}_{43 * 'x'}"
    tried = [secret, wrong, wrong, "hunter2", "hunter3", unknown, ""]
    assert [sign_in(key) for key in tried] == [303, 401, 401, 401, 401, 401, 401]
    prefix = secret[:16]
    assert recorded()[1:] == [
        ("sign-in", prefix, prefix, "done"),
        ("sign-in", "without-key", prefix, "refused"),
        ("sign-in", "without-key", None, "refused"),
    ]
    told = client.get("/v1/audit-events.jsonl?action=sign-in", headers=admin).text
    for shown in (secret, wrong, "hunter", unknown):
        assert shown not in told


def test_only_thumbnails_that_not_everybody_may_see_are_recorded(
    client: TestClient, recorded: Recorded
) -> None:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    made = service.keys.create(NewKey(name="a reader", scopes=frozenset({Scope.READ})))
    bearer = {"Authorization": f"Bearer {made.secret}"}
    (served,) = service.catalogue
    public, restricted = (served.work(row)["id"] for row in (3, 4))
    levels = service.visibility.levels[served.id].by_row
    levels[4] = LEVELS["signed-in"]
    try:
        shown = [
            client.get(f"/v1/works/{work}/thumbnail", headers=bearer) for work in (public, restricted, public)
        ]
    finally:
        levels[4] = LEVELS["public"]
    assert [one.status_code for one in shown] == [200, 200, 200]
    assert shown[1].headers["cache-control"].startswith("private")
    assert recorded()[1:] == [("thumbnail.read", made.key.prefix, restricted, "done")]
