"""The real service under load while a version takes the place of another, and its worker is killed meanwhile."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import pytest

from das.images import encode_png
from das.index import AttributionIndex
from index_build.changing import remove

DAS = Path(sys.executable).with_name("das")
PATIENCE_S = 300.0


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


@dataclass
class Running:
    """A `das serve` on a folder of versions."""

    process: "subprocess.Popen[bytes]"
    url: str
    folder: Path

    def computing(self) -> psutil.Process | None:
        """The worker's child, which holds the model."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline()[1:3] == ["-m", "worker"] and not child.children():
                    return child
        return None


@pytest.fixture
def running(tmp_path: Path, tiny_index: Path) -> Iterator[Running]:
    folder = tmp_path / "indexes"
    folder.mkdir()
    (folder / "first").symlink_to(tiny_index)
    environment = {
        **os.environ,
        "DAS_DATA_DIR": str(tmp_path / "data"),
        "DAS_INDEX_DIR": str(folder),
        "DAS_TORCH_THREADS": "1",
        "DAS_PORT": "0",
        "DAS_HEARTBEAT_SECONDS": "1",
        "DAS_LEASE_SECONDS": "5",
        "NO_COLOR": "1",
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([DAS, "serve"], env=environment, stdout=stream, stderr=stream)
    try:
        url = until(lambda: re.search(r"Open (http://\S+)", log.read_text()))[1]
        until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200)
        yield Running(process, url, folder)
    finally:
        process.terminate()
        process.wait(60)


@dataclass
class Asker:
    """Somebody who asks all the time, and writes down what was said."""

    url: str
    ending: threading.Event = field(default_factory=threading.Event)
    said: list[tuple[int, str, str]] = field(default_factory=list)

    def run(self) -> None:
        chance = np.random.default_rng(3)
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self.ending.is_set():
                picture = encode_png(chance.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                answer = client.post("/v1/attributions", files={"image": ("noise.png", picture)})
                body = answer.json()
                self.said.append((answer.status_code, body.get("index", answer.text), body.get("id", "")))
                time.sleep(0.3)


def test_asked_all_the_time_and_its_worker_killed_it_switches_without_an_error(
    running: Running, tiny_index: Path, tmp_path: Path
) -> None:
    first = AttributionIndex.open(tiny_index).id
    made = remove(AttributionIndex.open(tiny_index), np.arange(3), tmp_path / "second")
    asker = Asker(running.url)
    asking = threading.Thread(target=asker.run)
    asking.start()
    try:
        until(lambda: len(asker.said) > 3)
        (running.folder / "second").symlink_to(tmp_path / "second")
        with httpx.Client(base_url=running.url, timeout=60) as client:
            until(lambda: client.get("/v1/indexes").json()["items"][0]["next"])
            child = running.computing()
            if child is not None:
                child.kill()
            until(lambda: client.get("/v1/indexes").json()["items"][0]["id"] == made.index_id)
        so_far = len(asker.said)
        until(lambda: len(asker.said) > so_far + 3)
    finally:
        asker.ending.set()
        asking.join()
    assert {status for status, _, _ in asker.said} == {202}, asker.said
    named = [index for _, index, _ in asker.said]
    switched = named.index(made.index_id)
    assert switched > 0
    assert set(named[:switched]) == {first}
    assert set(named[switched:]) == {made.index_id}
    with httpx.Client(base_url=running.url, timeout=60) as client:
        ended = {job_id: until(lambda job_id=job_id: _ended(client, job_id)) for _, _, job_id in asker.said}
    for _, index, job_id in asker.said:
        assert (ended[job_id]["state"], ended[job_id]["index"]) == ("succeeded", index)


def _ended(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    body: dict[str, Any] = client.get(f"/v1/attributions/{job_id}", params={"wait": 20}).json()
    return body if body["state"] in ("succeeded", "failed") else None
