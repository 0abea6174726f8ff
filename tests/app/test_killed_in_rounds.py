"""A service on PostgreSQL of which one part after another is killed while pictures keep coming.

Each round ends one of API, worker, broker and database by SIGKILL. Every picture that was accepted has to end with
an answer or a reason, once, and what was asked again after a broken connection is one question. Takes minutes.
"""

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import numpy as np
import psutil
import pytest
from postgres import MortalServer, binaries, mortal
from sqlalchemy import create_engine, text

from das.images import encode_png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DAS = Path(sys.executable).with_name("das")
ROUNDS = int(os.environ.get("DAS_TEST_ROUNDS", "50"))
ASKERS = 4
START_S, SETTLED_S = 240, 300
PARTS = ("api", "worker", "child", "broker", "database")
QUICK = {
    "DAS_LEASE_SECONDS": "5",
    "DAS_RERING_SECONDS": "2",
    "DAS_SWEEP_SECONDS": "1",
    "DAS_HEARTBEAT_SECONDS": "1",
    # The rounds count as many starts as chance gives one question; giving up is another test's matter.
    "DAS_MAX_ATTEMPTS": "20",
}


@dataclass
class Served:
    """A `das serve` whose parts may be killed."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def part(self, name: str) -> psutil.Process | None:
        """The process that is a part at this moment; None while there is none."""
        found = {"api": "app", "worker": "worker"}
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            for child in children:
                words = child.cmdline()
                if name == "broker" and "broker.sock" in " ".join(words):
                    return child
                if name in found and words[1:3] == ["-m", found[name]]:
                    return child
                if name == "child" and words[1:3] == ["-m", "worker"] and not child.children():
                    return child
        except psutil.NoSuchProcess:
            return None
        return None


@dataclass
class Asker:
    """Somebody who asks again, with the same key, until a picture is accepted."""

    url: str
    number: int
    ending: threading.Event
    accepted: dict[str, str] = field(default_factory=dict)
    strange: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def run(self) -> None:
        chance = np.random.default_rng(self.number)
        with httpx.Client(base_url=self.url, timeout=30) as client:
            turn = 0
            while not self.ending.is_set():
                turn += 1
                key = f"asker-{self.number}-{turn}"
                picture = encode_png(chance.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                self._ask(client, key, picture)
                time.sleep(0.2)

    def _ask(self, client: httpx.Client, key: str, picture: bytes) -> None:
        tried = 0
        while True:
            tried += 1
            try:
                answer = client.post(
                    "/v1/attributions",
                    files={"image": ("noise.png", picture)},
                    headers={"Idempotency-Key": key},
                )
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code == 202:
                self.accepted[key] = answer.json()["id"]
                self.repeated += tried > 1
                return
            if answer.status_code not in (409, 429, 503):
                self.strange[f"{answer.status_code} {answer.text[:200]}"] += 1
            time.sleep(0.5)


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[MortalServer, str]]:
    if binaries() is None:
        pytest.skip("needs PostgreSQL (Debian's postgresql)")
    with mortal() as server, server.database() as url:
        yield server, url


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, tiny_index: Path, database: tuple[MortalServer, str]
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("rounds")
    environment = {
        **os.environ,
        "DAS_DATA_DIR": str(folder / "data"),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_DATABASE_URL": database[1],
        "DAS_TORCH_THREADS": "1",
        "DAS_PORT": "0",
        "NO_COLOR": "1",
        **QUICK,
    }
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(DAS), "serve"], env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    served = Served(process, log)
    try:
        deadline = time.monotonic() + START_S
        while not served.url or not _ready(served.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            told = re.search(r"Open (http://\S+)", log.read_text())
            served.url = told[1].rstrip("/") if told else ""
            time.sleep(0.2)
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


def _ready(url: str) -> bool:
    try:
        return bool(httpx.get(url + "/readyz", timeout=10).json()["ready"])
    except (httpx.TransportError, ValueError):
        return False


def _kill(served: Served, server: MortalServer, name: str) -> None:
    if name == "database":
        server.kill()
        time.sleep(1)
        server.start()
        return
    deadline = time.monotonic() + 60
    while (found := served.part(name)) is None:
        assert time.monotonic() < deadline, f"no {name} came back\n{served.log.read_text()[-4000:]}"
        time.sleep(0.2)
    found.kill()


def test_nothing_accepted_is_lost_or_done_twice(served: Served, database: tuple[MortalServer, str]) -> None:
    server, database_url = database
    chance, ending = random.Random(0), threading.Event()
    askers = [Asker(served.url, number, ending) for number in range(ASKERS)]
    threads = [threading.Thread(target=asker.run) for asker in askers]
    for thread in threads:
        thread.start()
    try:
        for number in range(ROUNDS):
            time.sleep(chance.uniform(0.5, 3))
            _kill(served, server, PARTS[number % len(PARTS)])
    finally:
        ending.set()
        for thread in threads:
            thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert sum((asker.strange for asker in askers), Counter()) == {}
    accepted = [job for asker in askers for job in asker.accepted.values()]
    assert len(accepted) >= ROUNDS
    assert sum(asker.repeated for asker in askers) > 0, "no connection was ever cut: the rounds tried nothing"
    engine = create_engine(database_url)
    deadline = time.monotonic() + SETTLED_S
    while True:
        with engine.connect() as connection:
            states = dict(connection.execute(text("SELECT id, state FROM jobs")).all())  # type: ignore[arg-type]
        if set(states.values()) <= {"succeeded", "failed"}:
            break
        assert time.monotonic() < deadline, Counter(states.values())
        time.sleep(1)
    # A question that was sent again is the same one: as many as keys, and no other.
    assert sorted(states) == sorted(accepted)
    with engine.connect() as connection:
        ends = Counter(
            connection.execute(
                text("SELECT job_id FROM job_events WHERE kind IN ('succeeded', 'failed', 'cancelled')")
            ).scalars()
        )
        reasons = connection.execute(text("SELECT error FROM jobs WHERE state = 'failed'")).scalars().all()
    engine.dispose()
    assert ends == Counter(accepted)
    assert all(reason and reason["message"] for reason in reasons)
    assert list(states.values()).count("succeeded") > 0.9 * len(states)
