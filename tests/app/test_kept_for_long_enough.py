"""How long things are kept, as API and page tell it: what expires when, and what a picture's going means."""

import asyncio
import html
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.duties import retaining
from app.service import Service
from app.threads import RunInThread
from jobs.credentials import Scope
from jobs.keys import NewKey
from jobs.models import ClaimedJob, utc_now
from jobs.retention import Retention
from jobs.store import JobStore

HTML = {"Accept": "text/html"}
WorkOff = Callable[[], ClaimedJob]


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def bearer(service: Service) -> Callable[..., dict[str, str]]:
    def bearer(**changes: Any) -> dict[str, str]:
        scopes = frozenset({Scope.ASK, Scope.READ})
        return {
            "Authorization": f"Bearer {service.keys.create(NewKey(name='a', scopes=scopes, **changes)).secret}"
        }

    return bearer


def test_an_answer_says_when_it_expires_and_outlives_its_picture(
    client: TestClient,
    service: Service,
    picture: bytes,
    bearer: Callable[..., dict[str, str]],
    work_off: WorkOff,
) -> None:
    key = bearer()
    body = client.post("/v1/attributions", files={"image": ("p.png", picture)}, headers=key).json()
    assert body["expires_at"] is None
    work_off()
    address = body["links"]["self"]
    first = client.get(address, headers=key)
    told = first.json()
    ended, expires = (datetime.fromisoformat(told[name]) for name in ("finished_at", "expires_at"))
    assert expires - ended == timedelta(days=90)

    retention = Retention(service.store, service.batches)
    retention.round(utc_now() + timedelta(days=2))
    again = client.get(address, headers={**key, "If-None-Match": first.headers["etag"]})
    assert again.status_code == 200, "it is another version"
    left = again.json()
    assert left["links"]["image"] is None
    assert (left["works"], left["expires_at"]) == (told["works"], told["expires_at"])
    (note,) = (note for note in left["notes"] if note not in told["notes"])
    assert "isn't kept any more" in note
    german = client.get(address, headers={**key, "Accept-Language": "de"}).json()
    assert any("nicht mehr gespeichert" in one for one in german["notes"])
    gone = client.get(f"{address}/image", headers=key)
    assert (gone.status_code, gone.json()["code"]) == (410, "erased")
    assert "its answer stays" in gone.json()["detail"]
    report = client.get(f"{address}/report.json", headers=key).json()["report"]
    assert (report["picture"]["pixels"], report["picture"]["sha256"]) == (None, told["input"]["sha256"])

    retention.round(utc_now() + timedelta(days=91))
    assert client.get(address, headers=key).status_code == 410


def test_a_page_without_its_picture_says_so_and_offers_nothing_that_takes_it(
    client: TestClient, store: JobStore, service: Service, ask: Callable[..., dict[str, Any]]
) -> None:
    body = ask()
    client.post(body["links"]["self"] + "/cancel").raise_for_status()
    page = client.get(body["links"]["page"], headers=HTML).text
    assert f"{body['links']['self']}/image" in page
    assert f"/a/{body['id']}/again" in page
    brief = service.settings.model_copy(update={"keep_uploads_seconds": 0})
    other = JobStore(brief, database=store.database, blobs=store.blobs)
    Retention(other, service.batches).round(utc_now() + timedelta(seconds=1))
    page = html.unescape(client.get(body["links"]["page"], headers=HTML).text)
    assert "The picture asked about, 16 × 16, isn't kept any more" in page
    assert f"{body['links']['self']}/image" not in page
    assert f"/a/{body['id']}/again" not in page
    refused = client.post(f"/a/{body['id']}/again", headers={**HTML, "Origin": "http://127.0.0.1:8000"})
    assert refused.status_code == 409
    assert "send it again" in refused.text


def test_without_a_key_nothing_expires(
    client: TestClient, service: Service, ask: Callable[..., dict[str, Any]], work_off: WorkOff
) -> None:
    body = ask()
    work_off()
    assert client.get(body["links"]["self"]).json()["expires_at"] is None
    Retention(service.store, service.batches).round(utc_now() + timedelta(days=3000))
    assert client.get(f"{body['links']['self']}/image").status_code == 200


def test_a_keys_own_times_are_made_and_told(client: TestClient, service: Service) -> None:
    admin = service.keys.create(NewKey(name="an operator", scopes=frozenset({Scope.ADMIN})))
    headers = {"Authorization": f"Bearer {admin.secret}"}
    wanted = {"name": "a key", "scopes": ["ask"], "keep_uploads": 0, "keep_results": 86_400}
    made = client.post("/v1/api-keys", json=wanted, headers=headers).json()
    assert (made["keep_uploads"], made["keep_results"]) == (0, 86_400)
    (listed,) = (
        one for one in client.get("/v1/api-keys", headers=headers).json()["items"] if one["id"] == made["id"]
    )
    assert (listed["keep_uploads"], listed["keep_results"]) == (0, 86_400)
    for field, wrong in (("keep_uploads", -1), ("keep_results", 59), ("keep_results", "30d")):
        refused = client.post("/v1/api-keys", json={**wanted, field: wrong}, headers=headers)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, f"/{field}")


def test_the_duty_removes_what_is_due(
    client: TestClient,
    service: Service,
    picture: bytes,
    bearer: Callable[..., dict[str, str]],
    work_off: WorkOff,
) -> None:
    key = bearer(keep_uploads=timedelta())
    body = client.post("/v1/attributions", files={"image": ("p.png", picture)}, headers=key).json()
    work_off()

    async def perform() -> None:
        await retaining(service, RunInThread(1)).once()

    asyncio.run(perform())
    assert client.get(body["links"]["self"], headers=key).json()["links"]["image"] is None
