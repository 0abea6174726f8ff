"""`/metrics`: what it counts, who may read it, and that nothing keeps it from answering."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from starlette.testclient import TestClient

from app.main import create_app
from app.metrics import alive, looking
from app.metrics.exposition import open_port, written
from app.metrics.loading import loading, searching
from app.metrics.looking import Look
from app.service import Service
from das.errors import SettingsError
from jobs.claims import GIVEN_UP
from jobs.credentials import Scope
from jobs.database import upgrade
from jobs.errors import StorageError
from jobs.happenings import SETTLED
from jobs.keys import NewKey
from jobs.models import utc_now
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.models import WebhookDelivery
from tests.app.receivers import receiving, until

# The kernel chooses one that is free; the setting itself has to name one.
ANY_PORT = 0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def scrape(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Samples]:
    """What is told now, of what has just happened too."""
    monkeypatch.setattr("jobs.happenings.SETTLED", timedelta(0))
    monkeypatch.setattr(looking, "FRESH_S", 0.0)

    def scrape() -> Samples:
        return samples(written(service.meters.registry, "")[0].decode())

    scrape()
    return scrape


def grown(before: Samples, after: Samples, name: str, **labels: str) -> float:
    return (of(after, name, **labels) or 0) - (of(before, name, **labels) or 0)


def test_the_way_of_a_question_is_counted(
    client: TestClient, store: JobStore, ask: Callable[..., dict[str, Any]], scrape: Callable[[], Samples]
) -> None:
    before = scrape()
    first, second = ask()["id"], ask()["id"]
    assert client.get(f"/v1/attributions/{first}").status_code == 200
    waiting = scrape()
    assert of(waiting, "das_jobs", state="queued") == 2
    assert 0 < (of(waiting, "das_oldest_queued_seconds") or 0) < 60
    index = client.get("/v1/indexes").json()["items"][0]["id"]
    claimed = store.leases.claim("a-worker", 8, [index])
    assert {job.id for job in claimed} == {first, second}
    assert of(scrape(), "das_jobs", state="running") == 2
    timings = {"queue_wait_ms": 20.0, "claim_ms": 1.0, "decode_ms": 2.0, "engine_ms": 1500.0, "batch": 2}
    assert store.leases.finish(claimed[0].token, {"works": []}, timings)
    assert store.leases.fail(claimed[1].token, "It took too long.", "time-limit")
    client.request("BREW", "/v1/attributions")
    after = scrape()

    for kind, times in {"created": 2, "started": 2, "succeeded": 1, "failed": 1}.items():
        assert grown(before, after, "das_job_events_total", kind=kind) == times, kind
    assert grown(before, after, "das_attempts_total", attempt="first") == 2
    assert grown(before, after, "das_claim_batch_size_count") == 1
    assert grown(before, after, "das_claim_batch_size_sum") == 2
    assert grown(before, after, "das_failures_total", code="time-limit") == 1
    assert grown(before, after, "das_stage_seconds_sum", stage="scoring") == 1.5
    assert grown(before, after, "das_stage_seconds_bucket", stage="scoring", le="1.0") == 0
    assert grown(before, after, "das_stage_seconds_bucket", stage="scoring", le="2.5") == 1
    assert grown(before, after, "das_stage_seconds_count", stage="writing") == 1
    assert grown(before, after, "das_stage_seconds_count", stage="whole") == 1
    assert grown(before, after, "das_intake_seconds_count", step="decoding") == 2
    assert grown(before, after, "das_intake_seconds_count", step="screening") == 2
    asked = {"method": "POST", "route": "/v1/attributions", "status": "2xx"}
    assert grown(before, after, "das_http_request_seconds_count", **asked) == 2
    told = {"method": "GET", "route": "/v1/attributions/{attribution_id}", "status": "2xx"}
    assert grown(before, after, "das_http_request_seconds_count", **told) == 1
    brewed = [key for key in after if ("method", "other") in key[1]]
    assert brewed, "a method that nobody knows is counted under one name"
    assert of(after, "das_jobs", state="queued") == of(after, "das_jobs", state="running") == 0
    # Nothing is counted twice.
    assert grown(after, scrape(), "das_job_events_total", kind="created") == 0


def test_a_lost_lease_is_counted_by_its_cause(
    client: TestClient, store: JobStore, ask: Callable[..., dict[str, Any]], scrape: Callable[[], Samples]
) -> None:
    before = scrape()
    job_id = ask()["id"]
    index = client.get("/v1/indexes").json()["items"][0]["id"]
    for attempt in range(1, 4):
        (claimed,) = store.leases.claim("a-worker", 8, [index])
        assert claimed.attempt == attempt
        if attempt == 2:
            store.leases.release([claimed.token], "its process was killed")
        else:
            store.leases.release_expired(claimed.created_at + timedelta(days=1))
    job = store.get(job_id)
    assert job is not None
    assert job.error is not None
    assert job.error["code"] == GIVEN_UP
    after = scrape()
    assert grown(before, after, "das_lease_losses_total", cause="silent") == 2
    assert grown(before, after, "das_lease_losses_total", cause="given-back") == 1
    assert grown(before, after, "das_failures_total", code=GIVEN_UP) == 1
    assert grown(before, after, "das_attempts_total", attempt="first") == 1
    assert grown(before, after, "das_attempts_total", attempt="further") == 2


def test_webhooks_are_counted_by_how_they_end(
    service: Service, store: JobStore, scrape: Callable[[], Samples]
) -> None:
    before = scrape()
    with receiving() as receiver:
        made = store.webhook_endpoints.create("local", receiver.url, None, None).endpoint
        sent = store.webhook_endpoints.test("local", made.id)

        def delivery() -> WebhookDelivery:
            return store.webhook_deliveries.list(made.id).deliveries[0]

        # This service connects to the public internet only, so the first attempt fails, and waits for the next.
        until(lambda: delivery().attempt)
        waiting = scrape()
        assert of(waiting, "das_webhook_deliveries_pending") == 1
        assert 0 < (of(waiting, "das_webhook_oldest_pending_seconds") or 0) < 60
        assert (of(waiting, "das_webhook_overdue_seconds") or 0) < 5
        for outcome in ("delivered", "failed"):
            assert grown(before, waiting, "das_webhook_deliveries_total", outcome=outcome) == 0
        with store.database.write() as session:
            session.execute(update(WebhookDelivery).values(give_up_at=utc_now(), next_attempt_at=utc_now()))
        until(lambda: delivery().state == "failed")
        after = scrape()
        assert grown(before, after, "das_webhook_deliveries_total", outcome="failed") == 1
        assert of(after, "das_webhook_deliveries_pending") == 0
        text = "".join(f"{name}{sorted(labels)}" for name, labels in after)
        assert not [secret for secret in (made.id, sent.id, str(receiver.port)) if secret in text]
        store.webhook_endpoints.delete("local", made.id)


def well(port: int) -> bool:
    return alive.fault(port) is None


def test_the_health_check_sees_whether_the_duties_are_done(
    service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DAS_METRICS_PORT isn't set" in str(alive.fault(None))
    with socket.socket() as taken:
        # Bound and not listening: nothing answers, and nobody else takes it.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert f"nothing answers on port {port}" in str(alive.fault(port))
    registry = CollectorRegistry()
    for registered, said in ((registry, "hasn't looked yet"), (service.meters.registry, None)):
        server = open_port(settings.model_copy(update={"metrics_port": ANY_PORT}), registered)
        assert server is not None
        port = server.server_port
        try:
            if said is None:
                until(partial(well, port))
                monkeypatch.setattr(alive, "STALE_S", -1.0)
                assert "it last looked for what is to be delivered" in str(alive.fault(port))
            else:
                assert said in str(alive.fault(port))
        finally:
            server.shutdown()
            server.server_close()
    monkeypatch.setattr(alive, "get_settings", lambda: settings)
    assert alive.main() == 1


def test_workers_parts_and_the_process_are_told(service: Service, scrape: Callable[[], Samples]) -> None:
    service.store.workers.heartbeat("loads", {"engine": "loading", "rss_mb": 100})
    service.limiter.let_through += 3
    found = scrape()
    assert of(found, "das_workers", state="ready") == 1
    assert of(found, "das_workers", state="loading") == 1
    assert of(found, "das_workers", state="silent") == 0
    assert of(found, "das_workers_resident_bytes") == 100e6
    for part in ("database", "broker", "index", "worker"):
        assert of(found, "das_part_up", part=part) == 1, part
    assert of(found, "das_limiter_let_through_total") == service.limiter.let_through
    assert (of(found, "das_disk_free_bytes") or 0) > 0
    assert of(found, "das_queue_limit") == 20
    assert (of(found, "process_resident_memory_bytes") or 0) > 1e7
    deadline = time.monotonic() + 60
    while (of(scrape(), "das_duty_rounds_total", duty="sweep", result="done") or 0) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.store.workers.retire("loads")


def test_loading_is_counted_from_what_workers_add_up(service: Service, scrape: Callable[[], Samples]) -> None:
    def told(worker: str, loads: int, evictions: int, seconds: float, pid: int = 7) -> None:
        memory = {"taken": 5e9, "loads": loads, "evictions": evictions, "seconds": seconds}
        info = {"engine": "ready", "pid": pid, "loaded": ["a@1", "b@2"], "memory": memory}
        service.store.workers.heartbeat(worker, info)

    told("old", 50, 40, 500.0)
    counter = loading()
    counter.look(service.store.workers.known())
    told("old", 53, 41, 530.0)
    told("new", 2, 0, 8.0)
    counter.look(service.store.workers.known())
    # Its process was replaced: what it says begins anew.
    told("new", 1, 1, 3.0, pid=8)
    counter.look(service.store.workers.known())
    counter.look(service.store.workers.known())
    counted = {one.name: one.samples[0].value for one in counter.collect()}
    assert counted == {
        "das_index_loads": 3 + 2 + 1,
        "das_index_evictions": 1 + 1,
        "das_index_load_seconds": 30.0 + 8.0 + 3.0,
    }
    found = scrape()
    assert of(found, "das_workers_loaded_indexes") == 4
    assert of(found, "das_workers_loaded_bytes") == 10e9
    assert (of(found, "das_index_loads_total") or 0) >= 0
    for worker in ("old", "new"):
        service.store.workers.retire(worker)


def test_shared_searches_are_counted_alike(service: Service, scrape: Callable[[], Samples]) -> None:
    counter = searching()
    counter.look([])
    for led, helped, taken_back in ((1, 5, 0), (3, 6, 2)):
        figures = {"led": led, "helped": helped, "taken_back": taken_back}
        service.store.workers.heartbeat("shares", {"engine": "ready", "pid": 9, "searches": figures})
        # One of an earlier version says nothing of it.
        service.store.workers.heartbeat("older", {"engine": "ready", "pid": 4})
        counter.look(service.store.workers.known())
    assert {one.name: one.samples[0].value for one in counter.collect()} == {
        "das_searches_shared": 3,
        "das_search_sections": 6,
        "das_search_sections_taken_back": 2,
    }
    assert (of(scrape(), "das_searches_shared_total") or 0) >= 0
    for worker in ("shares", "older"):
        service.store.workers.retire(worker)


def test_no_label_holds_an_id(
    client: TestClient, store: JobStore, ask: Callable[..., dict[str, Any]], scrape: Callable[[], Samples]
) -> None:
    job = ask(client_tag="Tagged")
    client.get(f"/a/{job['id']}")
    client.get("/nowhere/att_0123")
    (claimed,) = store.leases.claim("host-17", 8, [job["index"]])
    # Codes of a worker of another version count, but not any text, and not any number of them.
    store.leases.fail(claimed.token, "No.", f"about {job['id']}")
    text = "\n".join(f"{name}{sorted(labels)}" for name, labels in scrape())
    for secret in (job["id"], job["index"], "Tagged", "host-17", "a-worker", "nowhere"):
        assert secret not in text
    assert of(scrape(), "das_failures_total", code="other") == 1


def test_only_an_admin_reads_it(client: TestClient, service: Service) -> None:
    assert client.get("/metrics").json()["code"] == "key-required"
    reader = service.keys.create(NewKey(name="reader", scopes=frozenset({Scope.READ})))
    admin = service.keys.create(NewKey(name="admin", scopes=frozenset({Scope.ADMIN})))
    refused = client.get("/metrics", headers={"Authorization": f"Bearer {reader.secret}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope-missing")
    bearer = {"Authorization": f"Bearer {admin.secret}"}
    answer = client.get("/metrics", headers=bearer)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert of(samples(answer.text), "das_part_up", part="database") == 1
    open_metrics = client.get("/metrics", headers={**bearer, "Accept": "application/openmetrics-text"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")


def test_a_port_of_its_own_needs_no_key_and_a_taken_one_is_named(
    service: Service, settings: Settings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"port {port} on 127.0.0.1 can't be opened for metrics"):
            open_port(settings.model_copy(update={"metrics_port": port}), service.meters.registry)
    server = open_port(settings.model_copy(update={"metrics_port": ANY_PORT}), service.meters.registry)
    assert server is not None
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            assert of(samples(answer.read().decode()), "das_queue_limit") == 20
    finally:
        server.shutdown()
        server.server_close()
    assert open_port(settings, service.meters.registry) is None


def test_it_answers_without_database_and_broker(tmp_path: Any, settings: Settings) -> None:
    """A service of its own whose broker was never there and whose database goes while it runs."""
    lonely = settings.model_copy(update={"data_dir": tmp_path / "data"})
    upgrade(lonely)
    with TestClient(create_app(lonely)) as client:
        registry = client.app.state.meters.registry  # type: ignore[attr-defined]
        found = samples(written(registry, "")[0].decode())
        assert of(found, "das_part_up", part="database") == 1
        assert of(found, "das_part_up", part="broker") == 0
        assert of(found, "das_jobs", state="queued") == 0
        client.app.state.service.store.database.engine.dispose()  # type: ignore[attr-defined]
        (lonely.data_dir / "das.sqlite3").rename(tmp_path / "away")
        # At once: what the service does on the side would make a new one.
        (lonely.data_dir / "das.sqlite3").mkdir()
        for left in lonely.data_dir.glob("das.sqlite3-*"):
            left.unlink()
        time.sleep(looking.FRESH_S)
        found = samples(written(registry, "")[0].decode())
        assert of(found, "das_part_up", part="database") == 0
        assert of(found, "das_jobs", state="queued") is None
        assert "das_build_info" in {name for name, _ in found}
        (lonely.data_dir / "das.sqlite3").rmdir()


def test_what_hangs_is_waited_for_once_and_then_told_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "PATIENCE_S", 0.1)
    go_on, looks = threading.Event(), []

    def hang() -> str:
        looks.append(1)
        assert go_on.wait(60)
        return "there"

    look = Look("clock", hang, StorageError)
    began = time.monotonic()
    assert [look.latest() for _ in range(3)] == [None] * 3
    assert time.monotonic() - began < 30
    assert len(looks) == 1
    go_on.set()
    deadline = time.monotonic() + 60
    while look.latest() != "there":
        assert time.monotonic() < deadline


def test_what_is_just_being_written_is_left_for_the_next_look() -> None:
    assert timedelta(seconds=1) <= SETTLED <= timedelta(seconds=10)
