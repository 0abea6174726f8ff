"""The real application on a socket, for the client to ask; the worker's part is played."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from das.index import AttributionIndex
from das_client import Client
from jobs.credentials import Scope
from jobs.keys import NewKey
from tests.app.conftest import Live, clips, lasting_clip, live, picture, scored, settings, unhurried

__all__ = ["clips", "lasting_clip", "live", "picture", "settings", "unhurried"]


@pytest.fixture(scope="module")
def key(live: Live) -> str:
    return live.service.keys.create(NewKey(name="a client", scopes=frozenset(Scope))).secret


@pytest.fixture(scope="module")
def client(live: Live, key: str) -> Iterator[Client]:
    with Client(live.url, key) as client:
        yield client


@pytest.fixture
def worker(live: Live, tiny_index: Path) -> Iterator[Callable[[], int]]:
    """A worker that answers every question at once; calling it tells how many it has begun with."""
    index = AttributionIndex.open(tiny_index)
    ended = threading.Event()
    taken = 0

    def work() -> None:
        nonlocal taken
        info = {"engine": "ready", "indexes": [index.id]}
        while not ended.wait(0.02):
            live.service.store.workers.heartbeat("a-worker", info)
            for job in live.service.store.leases.claim("a-worker", 8, [index.id]):
                timings = {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1}
                taken += 1
                live.service.store.leases.finish(job.token, scored(index, job), timings)

    thread = threading.Thread(target=work)
    thread.start()
    yield lambda: taken
    ended.set()
    thread.join()
