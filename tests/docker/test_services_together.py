"""Each service of the compose file by its own command line and environment, as processes on real servers."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families
from standardwebhooks import Webhook

from das.images import encode_png
from jobs.broker_program import choose_program
from tests.app.receivers import receiving
from tests.conftest import make_picture
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PATIENCE_S = 240.0
# What a container has from its image, and a process here from this one.
KEPT = ("PATH", "HOME", "PYTHONPATH", "OMP_NUM_THREADS", "DAS_TORCH_THREADS", "HF_HUB_OFFLINE", "LANG")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """The server of the service `valkey`, by that service's own command line; its port."""
    port, folder = free_port(), tmp_path / "valkey"
    folder.mkdir()
    server = subprocess.Popen(
        [choose_program().path, *SERVICES["valkey"]["command"][1:], "--port", str(port), "--bind", "127.0.0.1",
         "--dir", folder],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        client = redis.Redis(port=port)
        while True:
            with contextlib.suppress(redis.ConnectionError):
                assert client.ping()
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        yield port
    finally:
        server.terminate()
        server.wait()


class Machine:
    """What the services find in their containers: their variables, with the places of this machine."""

    def __init__(self, folder: Path, index: Path, broker_port: int, database: str) -> None:
        self.folder = folder
        secrets = folder / "secrets"
        secrets.mkdir()
        (secrets / "database_url").write_text(database + "\n")
        (secrets / "session_secret").write_text("s" * 48 + "\n")
        # On one machine each needs ports of its own.
        self._ports = {(name, port): free_port() for name in SERVICES for port in ("8000", "9464")}
        self._places = {
            "/run/secrets": str(secrets), "valkey:6379": f"127.0.0.1:{broker_port}", "0.0.0.0": "127.0.0.1",
        }  # fmt: skip
        self._image = {
            "DAS_DATA_DIR": str(folder / "data"),
            "DAS_INDEX_DIR": str(index),
            "HF_HOME": str(folder),
        }
        self._written = {
            "DAS_PUBLIC_URL": f"http://localhost:{self.port('api', '8000')}",
            "DAS_FETCH_ALLOW": "127.0.0.1",
        }
        """What stands in `.env`."""

    def port(self, service: str, port: str) -> int:
        """The port that stands for one of the container's."""
        return self._ports[service, port]

    def environment(self, service: str) -> dict[str, str]:
        given: dict[str, str] = {**self._image, **SERVICES[service]["environment"]}
        for name, value in given.items():
            for before, after in self._places.items():
                value = value.replace(before, after)
            value = re.sub(r"\$\{([A-Z_]+):-([^}]*)\}", lambda m: self._written.get(m[1], m[2]), value)
            given[name] = str(self._ports.get((service, value), value))
        return {**{name: os.environ[name] for name in KEPT if name in os.environ}, **given}

    def run(self, service: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose run SERVICE …`, or what its health check runs."""
        return subprocess.run(
            _here([*command]), env=self.environment(service), cwd=self.folder, capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self, service: str) -> Iterator[None]:
        """The service's own command; ended in good order, as `docker compose stop` does it."""
        log = self.folder / f"{service}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                _here(SERVICES[service]["command"]), env=self.environment(service), cwd=self.folder,
                stdout=written, stderr=written,
            )  # fmt: skip
            try:
                yield
                assert process.poll() is None, log.read_text()[-4000:]
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]

    def logs(self) -> str:
        return "".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))


def _here(command: list[str]) -> list[str]:
    """A command of a container, by the programs that run these tests."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def asked(url: str, key: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


@pytest.mark.timeout(600)
def test_the_services_answer_a_question_together_and_tell_of_it(
    tmp_path: Path, tiny_index: Path, broker: int, postgres: PostgresServer
) -> None:
    with postgres.database() as database, receiving() as receiver:
        machine = Machine(tmp_path, tiny_index, broker, database)
        url = f"http://127.0.0.1:{machine.port('api', '8000')}"
        with machine.running("api"), machine.running("worker-cpu"), machine.running("io-worker"):
            made = machine.run(
                "api", "das", "keys", "create", "pipeline", "--scope", "ask", "--scope", "read"
            )
            assert made.returncode == 0, made.stderr
            found = re.search(r"das_\S+", made.stdout)
            assert found is not None
            key = found[0]
            _until_ready(url, machine)
            endpoint = asked(f"{url}/v1/webhook-endpoints", key, {"url": receiver.url})
            picture = base64.b64encode(encode_png(make_picture(77))).decode()
            job = asked(f"{url}/v1/attributions", key, {"image_base64": picture, "top_k": 3})
            deadline = time.monotonic() + PATIENCE_S
            while job["state"] in ("queued", "running"):
                assert time.monotonic() < deadline
                job = asked(f"{url}{job['links']['self']}?wait=5", key)
            assert job["state"] == "succeeded", job
            assert len(job["works"]) == 3
            # The API leaves that to the io-worker.
            (got,) = receiver.wait()
            told = Webhook(endpoint["secret"]).verify(got.body, got.headers)
            assert (told["type"], told["data"]["id"]) == ("attribution.succeeded", job["id"])
            _scraped(machine)
            check = machine.run("io-worker", *SERVICES["io-worker"]["healthcheck"]["test"][1:])
            assert (check.returncode, check.stderr) == (0, "")
        check = machine.run("io-worker", *SERVICES["io-worker"]["healthcheck"]["test"][1:])
        assert check.returncode == 1
        assert "nothing answers on port" in check.stderr


def _until_ready(url: str, machine: Machine) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
                assert answer.status == 200
                return
        except (OSError, urllib.error.HTTPError) as error:
            last = str(error)
        assert time.monotonic() < deadline, f"{last}: {machine.logs()}"
        time.sleep(0.5)


def _scraped(machine: Machine) -> None:
    """Prometheus finds what the worker and the io-worker did at the API, once their rows have settled."""
    deadline = time.monotonic() + 60
    while True:
        api, duties = (_samples(machine.port(name, "9464")) for name in ("api", "io-worker"))
        if api.get(("das_webhook_deliveries_total", "delivered")) == 1:
            break
        assert time.monotonic() < deadline, api
        time.sleep(0.5)
    assert api["das_job_events_total", "succeeded"] == 1
    assert api["das_stage_seconds_count", "whole"] == 1
    assert api["das_claim_batch_size_count",] == 1
    assert api["das_workers", "ready"] == 1
    assert [api["das_part_up", part] for part in ("broker", "database", "index", "worker")] == [1] * 4
    # Labels in the order of their names: the duty, then the result.
    assert duties["das_duty_rounds_total", "deliver", "done"] > 0
    assert [sample for sample in api if sample[:2] == ("das_duty_rounds_total", "deliver")] == []


def _samples(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
