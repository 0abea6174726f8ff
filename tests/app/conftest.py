"""The real application on a real index, database and broker. The worker's part is played through the store."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from sqlalchemy import Engine
from starlette.testclient import TestClient

from app.main import create_app
from app.protocol import BoundedProtocol
from app.service import Service
from das.answer import CandidateSet, GroupShare, RankedWork, summarise
from das.images import encode_png
from das.index import AttributionIndex
from jobs.broker import Broker
from jobs.database import upgrade
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings
from jobs.store import JobStore
from tests.app.lasting_clip import LastingClips

LOADING_S = 240
BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="session", autouse=True)
def unhurried() -> Iterator[None]:
    """Nothing is given up here for which a busy machine takes long: look-alikes, counting, announcements, looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.intake.SCREENING_PATIENCE_S", 120.0)
        patch.setattr("app.limiting.TIMEOUT_S", 60.0)
        patch.setattr("jobs.notify.PUBLISH_TIMEOUT_S", 60.0)
        patch.setattr("app.metrics.looking.PATIENCE_S", 60.0)
        yield


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A PNG of 16 × 16 pixels that no other is like."""
    return encode_png(np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path, picture: bytes) -> Settings:
    folder = tmp_path_factory.mktemp("service")
    samples = folder / "samples"
    samples.mkdir()
    (samples / "one.png").write_bytes(picture)
    (samples / "two.png").write_bytes(picture)
    (samples / "samples.json").write_text('[{"file": "two.png", "title": "A second one"}]')
    return Settings(
        _env_file=None,
        data_dir=folder / "data",
        index_dir=tiny_index,
        samples_dir=samples,
        max_upload_bytes=300_000,
        queue_limit=20,
        lease_seconds=60,
        # The worker that tests play gives a sign of life before each of them, however long that takes.
        heartbeat_seconds=3600,
        # The tests' client has no loopback address and asks a thousand times a minute.
        address_rate_limit=None,
    )


@pytest.fixture(scope="session")
def clips() -> Iterator[LastingClips]:
    clips = LastingClips()
    yield clips
    clips.close()


@pytest.fixture(scope="module")
def lasting_clip(clips: LastingClips) -> Iterator[None]:
    """Applications get CLIP from those before them."""
    with clips.used():
        yield


@pytest.fixture(scope="module")
def client(settings: Settings, lasting_clip: None) -> Iterator[TestClient]:
    """The application, with CLIP loaded and a broker that answers."""
    upgrade(settings)
    broker = Broker(settings)
    broker.start()
    try:
        # A 500 is looked at as a client sees it, not as the exception behind it.
        with TestClient(create_app(settings), BASE_URL, raise_server_exceptions=False) as client:
            service: Service = client.app.state.service  # type: ignore[attr-defined]
            deadline = time.monotonic() + LOADING_S
            while any(service.screener.status(served.id) == "loading" for served in service.catalogue):
                assert time.monotonic() < deadline, "CLIP isn't loaded"
                time.sleep(0.05)
            yield client
    finally:
        broker.stop()


@pytest.fixture
def undisturbed(client: TestClient, settings: Settings) -> Iterator[TestClient]:
    """The application of one more process on the same data, which does nothing on the side.

    Its database is asked by requests alone, so that what they ask can be counted.
    """
    with TestClient(create_app(settings.model_copy(update={"duties": "io-worker"})), BASE_URL) as undisturbed:
        yield undisturbed


def engine_of(client: TestClient) -> Engine:
    """The connections of an application to its database."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service.store.database.engine


@dataclass(frozen=True)
class Live:
    """The application on a socket, as clients meet it."""

    url: str
    port: int
    service: Service


@pytest.fixture(scope="module")
def live(settings: Settings, lasting_clip: None) -> Iterator[Live]:
    """The application behind the service's own HTTP on a port of loopback, with a worker that is alive for long."""
    settings = settings.model_copy(update={"data_dir": settings.data_dir.with_name("live")})
    upgrade(settings)
    broker = Broker(settings)
    broker.start()
    app = create_app(settings)
    protocol = BoundedProtocol.with_limits(settings.head_seconds, settings.body_seconds)
    server = uvicorn.Server(
        uvicorn.Config(app, http=protocol, ws="none", log_config=None, timeout_graceful_shutdown=2)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + LOADING_S
            while not server.started:
                assert time.monotonic() < deadline
                assert thread.is_alive()
                time.sleep(0.05)
            service: Service = app.state.service
            info = {"engine": "ready", "indexes": [served.id for served in service.catalogue]}
            service.store.workers.heartbeat("a-worker", info)
            yield Live(f"http://127.0.0.1:{port}", port, service)
        finally:
            server.should_exit = True
            thread.join()
            broker.stop()


@pytest.fixture(autouse=True)
def a_worker(request: pytest.FixtureRequest) -> None:
    """A sign of life of the worker that tests play, so that questions are taken however long a module runs."""
    if "client" in request.fixturenames:
        service: Service = request.getfixturevalue("client").app.state.service
        info = {"engine": "ready", "indexes": [served.id for served in service.catalogue]}
        service.store.workers.heartbeat("a-worker", info)


@pytest.fixture
def store(client: TestClient) -> Iterator[JobStore]:
    """The application's own store; every question is erased after a test, so that the queue is empty."""
    store: JobStore = client.app.state.service.store  # type: ignore[attr-defined]
    yield store
    for job in store.list(limit=100).jobs:
        store.erase(job.id)


@pytest.fixture
def ask(client: TestClient, store: JobStore, picture: bytes) -> Callable[..., dict[str, Any]]:
    """Ask about the picture; returns the answer's body."""

    def ask(**fields: Any) -> dict[str, Any]:
        response = client.post("/v1/attributions", files={"image": ("p.png", picture)}, data=fields)
        assert response.status_code == 202, response.text
        body: dict[str, Any] = response.json()
        return body

    return ask


@pytest.fixture
def work_off(store: JobStore, tiny_index: Path) -> Callable[[], ClaimedJob]:
    """Play a worker for one batch of one job: claim it, score it with known numbers, finish it."""
    index = AttributionIndex.open(tiny_index)

    def work_off() -> ClaimedJob:
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        store.leases.progress([job.token], "gradients", 3, 3)
        assert store.leases.finish(
            job.token, scored(index, job), {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1}
        )
        return job

    return work_off


def scored(index: AttributionIndex, job: ClaimedJob) -> JsonObject:
    """A result in the engine's form: the r-th of n candidates gets the share (n - r) / (1 + … + n)."""
    ids = index.works.column("id")
    rows = list(range(len(index))) if job.candidate_works is None else [*map(ids.index, job.candidate_works)]
    shares = [2 * (len(rows) - place) / (len(rows) * (len(rows) + 1)) for place in range(len(rows))]
    works = [
        {
            "rank": place + 1,
            "work_id": ids[row],
            "score": 10 * share,
            "share": share,
            "percentile": 99.0 - place,
        }
        for place, (row, share) in enumerate(zip(rows, shares, strict=True))
    ]
    groups = []
    for name in sorted({name for name in index.works.creators if name}):
        own = [share for row, share in zip(rows, shares, strict=True) if index.works.creators[row] == name]
        part = len(own) / len(rows)
        factor = sum(own) / part if own else 0.0
        groups.append(
            {"name": name, "share": sum(own), "works": len(own), "share_of_index": part, "factor": factor}
        )
    groups.sort(key=lambda group: -group["share"])
    candidates = CandidateSet("all" if job.candidate_works is None else "screened", len(rows))
    first = RankedWork(1, ids[rows[0]], rows[0], 10 * shares[0], shares[0], 99.0)
    return {
        "method": job.method,
        "candidates": {"mode": candidates.mode, "count": candidates.count},
        "works": works[: job.top_k],
        "groups": {"creator": groups},
        "summary": summarise(index.works, first, [GroupShare(**group) for group in groups], candidates),
        "timings_ms": {"gradients": 2.0, "scoring": 0.25},
    }
