"""Schemathesis with all of its checks against the service on a socket: it finds nothing.

A worker's part is played meanwhile, so that there are answers, decisions and reports to be looked at.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from app.moderation.examples import POLICY_DOCUMENT
from das.index import AttributionIndex
from jobs.credentials import Scope
from jobs.keys import IssuedKey, NewKey
from jobs.settings import Settings
from tests.app.conftest import Live, scored

HERE = Path(__file__).parent
SEED = "20261"
FULL_SEED = "20262"
ALL_SCOPES = frozenset(Scope)
PATIENCE_S = 3500
LOADING_S = 240


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    """As when others may reach it, without the limits that thousands of requests of one client would meet."""
    changes = {
        "api_keys": "required",
        "rate_limit": None,
        "queue_limit": 100_000,
        "fetch_allow": "127.0.0.1",
    }
    return settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def worker(live: Live, tiny_index: Path) -> Iterator[None]:
    """A worker that answers every question at once, with known numbers."""
    index = AttributionIndex.open(tiny_index)
    ended = threading.Event()

    def work() -> None:
        info = {"engine": "ready", "indexes": [index.id]}
        while not ended.wait(0.02):
            live.service.store.workers.heartbeat("a-worker", info)
            for job in live.service.store.leases.claim("a-worker", 8, [index.id]):
                timings = {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1}
                live.service.store.leases.finish(job.token, scored(index, job), timings)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture(scope="module")
def key(live: Live) -> IssuedKey:
    return live.service.keys.create(NewKey(name="contract", scopes=ALL_SCOPES))


@pytest.fixture(scope="module")
def picture_url(tmp_path_factory: pytest.TempPathFactory, picture: bytes) -> Iterator[str]:
    """The address of a picture, on a server of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "picture.png").write_bytes(picture)
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/picture.png"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def world(live: Live, worker: None, key: IssuedKey, picture: bytes, picture_url: str) -> dict[str, Any]:
    """What exists in the service, for requests that are meant to be valid."""
    with httpx.Client(
        base_url=live.url, headers={"Authorization": f"Bearer {key.secret}"}, timeout=60
    ) as client:
        deadline = time.monotonic() + LOADING_S
        while not client.get("/readyz").json()["ready"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made = client.post("/v1/policies", json={"policy": POLICY_DOCUMENT})
        assert made.status_code == 201, made.text
        decided = [
            client.post(
                "/v1/decisions",
                files={"image": ("p.png", picture)},
                data={"policy": POLICY_DOCUMENT["policy"]},
                headers={"Prefer": "wait=30"},
            ).json()
            for _ in range(3)
        ]
        assert [decision.get("state") for decision in decided] == ["decided"] * 3, decided
        batch = client.post("/v1/attribution-batches", files=[("image", ("p.png", picture))] * 2)
        assert batch.status_code == 202, batch.text
        shared = client.post(f"/v1/attributions/{decided[0]['attribution']}/shares", json={})
        assert shared.status_code == 201, shared.text
        endpoint = client.post("/v1/webhook-endpoints", json={"url": picture_url})
        assert endpoint.status_code == 201, endpoint.text
        index = client.get("/v1/indexes").json()["items"][0]
        works = client.get(f"/v1/indexes/{index['id']}/works").json()["items"]
    return {
        "picture": base64.b64encode(picture).decode(),
        "picture_url": picture_url,
        "index": index["id"],
        "methods": index["methods"],
        "policy": POLICY_DOCUMENT,
        "key": key.key.id,
        "endpoint": endpoint.json()["id"],
        "ids": {
            "attribution_id": [decision["attribution"] for decision in decided],
            "batch_id": [batch.json()["id"]],
            "share_id": [shared.json()["id"]],
            "decision_id": [decision["id"] for decision in decided],
            "policy_id": [POLICY_DOCUMENT["policy"]],
            "index_id": [index["id"]],
            "work_id": [work["work_id"] for work in works[:3]],
        },
    }


def run(live: Live, folder: Path, world: dict[str, Any], *options: str) -> None:
    """One run of schemathesis from its command line, which fails with what it found."""
    (folder / "world.json").write_text(json.dumps(world))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file",
            HERE / "schemathesis.toml",
            "run",
            f"{live.url}/openapi.json",
            "--no-color",
            *options,
        ],
        cwd=folder,
        env={
            **os.environ,
            "DAS_CONTRACT_WORLD": str(folder / "world.json"),
            "SCHEMATHESIS_HOOKS": str(HERE / "valid_requests.py"),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


QUICK = ("--phases", "examples,coverage", "--seed", SEED)
FULL = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "100", "--seed", FULL_SEED)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "options", [QUICK, pytest.param(FULL, marks=pytest.mark.slow)], ids=["quick", "full"]
)
def test_nothing_is_found_with_a_key_of_every_scope(
    live: Live, world: dict[str, Any], key: IssuedKey, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Among the checks is `ignored_auth`: what a key lets in is refused without one, and with another."""
    run(live, tmp_path, world, "--header", f"Authorization: Bearer {key.secret}", *options)
