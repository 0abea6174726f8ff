"""Indexes, works, health, version, and the description of the API."""

import hashlib
import json
import time

import pytest

from app.examples import ATTRIBUTION
from app.openapi import SNAPSHOT, description
from app.problems import CATALOGUE, MEDIA_TYPE
from app.schemas import Attribution
from das.index import AttributionIndex


def test_the_indexes_are_listed_with_their_facts(client, tiny_index):
    (index,) = client.get("/v1/indexes").json()["items"]
    manifest = AttributionIndex.open(tiny_index).manifest
    assert index["id"] == manifest.id
    assert index["name"] == "tiny"
    assert (index["works"], index["creators"]) == (40, 3)
    assert (index["dimension"], index["timesteps"]) == (128, 3)
    assert index["methods"] == ["das-block", "das"]
    assert index["model"]["sample_shape"] == [3, 16, 16]
    assert index["status"] == "ready"
    card = client.get(f"/v1/indexes/{index['id']}").json()
    assert card["card"] == AttributionIndex.open(tiny_index).card
    assert card["quality"] is None
    assert client.get("/v1/indexes/other@000000").json()["code"] == "not-found"


def test_a_work_is_told_with_every_column(client, tiny_works):
    data = (tiny_works / "work-004.png").read_bytes()
    work_id = "w_" + hashlib.sha256(data).hexdigest()[:16]
    work = client.get(f"/v1/works/{work_id}").json()
    assert work["title"] == "Study no. 4"
    assert work["creator"] == "Anna Atkins"
    assert work["licence"] == "CC0-1.0"
    assert work["index"].startswith("tiny@")
    assert "camera" in work["metadata"]
    assert client.get(f"/v1/works/{work_id}", params={"index": work["index"]}).json() == work
    assert client.get(f"/v1/works/{work_id}", params={"index": "other@1"}).status_code == 404


def test_a_thumbnail_may_be_kept_for_a_while(client, tiny_index):
    index = AttributionIndex.open(tiny_index)
    work_id = index.works.row(9)["id"]
    response = client.get(f"/v1/works/{work_id}/thumbnail")
    assert response.content == index.thumbnail(9)
    assert response.headers["content-type"] == "image/webp"
    assert response.headers["cache-control"] == "public, max-age=600"
    again = client.get(f"/v1/works/{work_id}/thumbnail", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_ready_needs_a_worker_and_says_so(client, store):
    store.workers.retire("a-worker")
    assert client.get("/healthz").json() == {"status": "ok"}
    response = client.get("/readyz")
    checks = response.json()["checks"]
    assert response.status_code == 503
    assert {name: check["ok"] for name, check in checks.items()} == {
        "database": True, "broker": True, "index": True, "worker": False
    }  # fmt: skip
    assert "das worker" in checks["worker"]["detail"]
    store.workers.heartbeat("w", {"engine": "loading", "loading": "tiny@1"})
    assert "loading tiny@1" in client.get("/readyz").json()["checks"]["worker"]["detail"]
    # One that was ready and loads another index answers on, as one that computes does.
    store.workers.heartbeat("w", {"engine": "ready", "loading": "tiny@1", "oversized": ["big@2"]})
    checks = client.get("/readyz").json()["checks"]
    assert checks["worker"]["ok"] is True
    assert checks["worker"]["detail"] == (
        "1 ready; loading tiny@1;"
        " big@2 alone takes more than DAS_MEMORY_BUDGET_GB, so nothing else is loaded beside it"
    )
    store.workers.heartbeat("w", {"engine": "failed", "error": "no model at s3://k:pw@b"})
    assert client.get("/readyz").json()["checks"]["worker"] == {
        "ok": False,
        "detail": "1 alive, none has loaded its model; failed: no model at s3://***@b",
    }
    store.workers.heartbeat("w", {"engine": "ready", "failed": {"other": "its model is gone"}})
    ready = client.get("/readyz").json()
    assert ready["ready"] is True
    assert ready["checks"]["worker"]["detail"] == "1 ready; without other: its model is gone"
    assert ready["checks"]["broker"]["detail"].split()[0] in ("Valkey", "Redis")
    store.workers.retire("w")


def test_a_question_about_an_index_that_no_worker_holds_is_refused(client, store, picture, monkeypatch):
    service = client.app.state.service
    (served,) = service.catalogue

    def ask():
        return client.post("/v1/attributions", files={"image": ("p.png", picture)})

    store.workers.heartbeat("a-worker", {"engine": "loading", "indexes": [served.id]})
    monkeypatch.setattr(service, "started_at", service.started_at - 3600)
    assert ask().status_code == 202, "it is loaded soon"
    store.workers.heartbeat("a-worker", {"engine": "ready", "indexes": ["other@1"]})
    refused = ask()
    assert (refused.status_code, refused.json()["code"]) == (503, "not-ready")
    assert f"No worker holds the index {served.id} at the moment" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "30"
    # As of now, since this module's service may have been running for long where the machine is busy.
    monkeypatch.setattr(service, "started_at", time.monotonic())
    assert ask().status_code == 202, "a service that starts waits for its workers to speak"


def test_the_version_names_the_libraries(client):
    told = client.get("/version").json()
    assert told["name"] == "das-attribution"
    assert set(told["libraries"]) >= {"torch", "diffusers"}


def test_the_description_is_the_one_in_the_repository():
    assert json.loads(SNAPSHOT.read_text(encoding="utf-8")) == description(), "run python -m app.openapi"


def test_every_operation_has_a_stable_name_and_lists_its_errors():
    document = description()
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert sorted(names) == sorted(set(names))
    assert set(names) == {
        "createOptOut", "listOptOuts", "getOptOut", "withdrawOptOut", "eraseOptOut", "verifyOptOut", "applyOptOut",
        "rejectOptOut", "listAuditEvents", "exportAuditEventsCsv", "exportAuditEventsJsonl",
        "createAttribution", "listAttributions", "getAttribution", "cancelAttribution", "deleteAttribution",
        "getAttributionImage", "listIndexes", "getIndex", "listWorks", "getWork", "getWorkThumbnail", "getHealth",
        "getReadiness", "getVersion", "streamAttributionEvents", "createDecision", "listDecisions", "getDecision",
        "reviewDecision", "putPolicy", "listPolicies", "getPolicy", "activatePolicy", "backtestPolicy", "getReport",
        "getReportPage", "getReportKey", "createApiKey", "listApiKeys", "getQuota", "revokeApiKey", "rotateApiKey",
        "getMetrics", "createAttributionBatch", "listAttributionBatches", "getAttributionBatch",
        "getAttributionBatchResults", "cancelAttributionBatch", "deleteAttributionBatch",
        "createShare", "listShares", "revokeShare",
        "getReportPdf", "getStatement", "listWebhookEndpoints", "createWebhookEndpoint",
        "getWebhookEndpoint", "changeWebhookEndpoint", "deleteWebhookEndpoint", "rotateWebhookSecret",
        "testWebhookEndpoint", "listWebhookDeliveries", "redeliverWebhook",
    }  # fmt: skip
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status >= "400" and operation["operationId"] != "getReadiness":
                    examples = response["content"][MEDIA_TYPE]["examples"]
                    assert {CATALOGUE[code].status for code in examples} == {int(status)}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_reference_in_the_description_leads_somewhere():
    document = description()

    def references(part):
        if isinstance(part, dict):
            yield from ([part["$ref"]] if "$ref" in part else [])
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    for reference in references(document):
        _, kind, name = reference.removeprefix("#/").split("/")
        assert name in document["components"][kind], reference


def test_the_example_is_an_answer():
    assert (
        Attribution.model_validate(ATTRIBUTION).model_dump(mode="json", by_alias=True).keys()
        == ATTRIBUTION.keys()
    )
    assert Attribution.model_validate(ATTRIBUTION).works[0].rank == 1


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_kind_of_error_is_explained_on_its_page(client, code):
    assert f'id="{code}"' in client.get("/problems").text
