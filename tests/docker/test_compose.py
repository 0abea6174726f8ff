"""The compose file: its form, and each service's own command line and environment as processes on real servers."""

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

from das.images import encode_png
from jobs.broker_program import choose_program
from tests.collector import Collector, attributes, collecting
from tests.conftest import make_picture
from tests.postgres import PostgresServer

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|DATABASE_URL")
PATIENCE_S = 240.0
CALLERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_well_formed(name: str) -> None:
    service = SERVICES[name]
    own = service["image"].startswith("das-")
    assert own or PINNED.fullmatch(service["image"]), service["image"]
    assert isinstance(service.get("command", []), list), "in exec form"
    for variable, value in service.get("environment", {}).items():
        if SECRET_NAME.search(variable):
            assert variable.endswith("_FILE"), variable
            assert value.startswith("/run/secrets/")
            assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for dependency, condition in service.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[dependency]
    for volume in service.get("volumes", ()):
        source = re.sub(r"\$\{[A-Z_]+(?::-([^}]*)|:\?[^}]*)\}", lambda m: m[1] or "/given", volume).split(
            ":"
        )[0]
        assert source.startswith(("/", "./")) or source in COMPOSE["volumes"], volume
        if source.startswith("./"):
            assert (ROOT / source).exists(), volume
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:") or name == "caddy", f"{port} is open to everybody"
    if own:
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "no-new-privileges:true" in service["security_opt"]
        build = service.get("build")
        assert build is None or f"AS {build['target']}" in (ROOT / build["dockerfile"]).read_text()


def test_the_servers_are_reached_by_the_services_alone() -> None:
    for name in ("valkey", "postgres"):
        assert SERVICES[name]["networks"] == ["inner"]
        assert "ports" not in SERVICES[name]
    assert COMPOSE["networks"]["inner"] == {"internal": True}
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert {s["profiles"][0] for s in SERVICES.values() if "profiles" in s} == {
        "gpu", "cpu", "build", "tls", "monitoring",
    }  # fmt: skip


def test_every_variable_that_is_asked_for_stands_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text() + (ROOT / "docs" / "deployment.md").read_text()
    for variable in re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()):
        assert variable in example, variable


def test_prometheus_and_grafana_find_what_is_mounted() -> None:
    prometheus = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    port = SERVICES["api"]["environment"]["DAS_METRICS_PORT"]
    assert job["static_configs"] == [{"targets": [f"api:{port}"]}]
    assert job["job_name"] == "das", "alerts name it"
    assert prometheus["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert (ROOT / "docker" / "prometheus" / "alerts.yml").exists()
    source = yaml.safe_load((ROOT / "docker" / "grafana" / "datasource.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The server of the service `valkey`, by that service's own command line; its port."""
    command = SERVICES["valkey"]["command"]
    port, folder = free_port(), tmp_path_factory.mktemp("valkey")
    program = choose_program().path
    server = subprocess.Popen(
        [program, *command[1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
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
    """What a service finds in its container: its variables, with the places of this machine."""

    def __init__(self, folder: Path, index: Path, broker_port: int, database: str, collector: str) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        (self.secrets / "database_url").write_text(database + "\n")
        (self.secrets / "session_secret").write_text("s" * 48 + "\n")
        self.ports = {"8000": str(free_port()), "9464": str(free_port())}
        self._changes = {
            "/run/secrets": str(self.secrets), "valkey:6379": f"127.0.0.1:{broker_port}", "0.0.0.0": "127.0.0.1",
        }  # fmt: skip
        self._image = {
            "DAS_DATA_DIR": str(folder / "data"),
            "DAS_INDEX_DIR": str(index),
            "HF_HOME": str(folder),
        }
        self._collector = collector

    def environment(self, service: str) -> dict[str, str]:
        given = {**self._image, **SERVICES[service]["environment"]}
        for name, value in given.items():
            for before, after in self._changes.items():
                value = value.replace(before, after)
            # What compose takes from .env, at its default.
            value = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)
            given[name] = self.ports.get(value, value)
        given["DAS_PUBLIC_URL"] = f"http://localhost:{self.ports['8000']}"
        given["OTEL_EXPORTER_OTLP_ENDPOINT"] = self._collector
        given["OTEL_BSP_SCHEDULE_DELAY"] = "100"
        kept = (
            "PATH",
            "HOME",
            "PYTHONPATH",
            "OMP_NUM_THREADS",
            "DAS_TORCH_THREADS",
            "HF_HUB_OFFLINE",
            "LANG",
        )
        return {**{name: os.environ[name] for name in kept if name in os.environ}, **given}

    def das(self, service: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`docker compose run SERVICE das …`."""
        return subprocess.run(
            [Path(sys.executable).with_name("das"), *arguments],
            env=self.environment(service),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    @contextlib.contextmanager
    def running(self, service: str) -> Iterator["subprocess.Popen[bytes]"]:
        """The service's own command; ended in good order, as `docker compose stop` does it."""
        command = SERVICES[service]["command"]
        assert command[0] == "das"
        log = self.folder / f"{service}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [Path(sys.executable).with_name("das"), *command[1:]],
                env=self.environment(service),
                cwd=self.folder,
                stdout=written,
                stderr=written,
            )
            try:
                yield process
                assert process.poll() is None, log.read_text()[-4000:]
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(60)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()


def asked(url: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "traceparent": CALLERS}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.status, json.load(answer)


@pytest.mark.timeout(900)
def test_the_services_answer_a_question_together(
    tmp_path: Path, tiny_index: Path, broker: int, postgres: PostgresServer
) -> None:
    """API and worker, each by its own command line and environment, on PostgreSQL and Valkey."""
    with postgres.database() as database, collecting() as collector:
        machine = Machine(tmp_path, tiny_index, broker, database, collector.url)
        refused = machine.das("api", "serve", "--no-worker")
        assert refused.returncode == 2, "it is reached from beyond its container, so it needs a key"
        assert "das keys create" in refused.stdout + refused.stderr
        made = machine.das("api", "keys", "create", "pipeline", "--scope", "ask", "--scope", "read")
        assert made.returncode == 0, made.stderr
        key = re.search(r"das_\S+", made.stdout)
        assert key is not None
        with machine.running("api"), machine.running("worker-cpu"):
            url = f"http://127.0.0.1:{machine.ports['8000']}"
            _until_ready(url, machine)
            picture = base64.b64encode(encode_png(make_picture(77))).decode()
            status, job = asked(f"{url}/v1/attributions", key[0], {"image_base64": picture, "top_k": 3})
            assert status == 202
            deadline = time.monotonic() + PATIENCE_S
            while job["state"] in ("queued", "running"):
                assert time.monotonic() < deadline
                _, job = asked(f"{url}{job['links']['self']}?wait=5", key[0])
            assert job["state"] == "succeeded", job
            assert len(job["works"]) == 3
            _one_trace(collector, job["id"])
            _scraped(machine)


def _until_ready(url: str, machine: Machine) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
                assert answer.status == 200
                return
        except (OSError, urllib.error.HTTPError) as error:
            last = str(error)
        logs = "".join(path.read_text()[-2000:] for path in machine.folder.glob("*.log"))
        assert time.monotonic() < deadline, f"{last}: {logs}"
        time.sleep(0.5)


def _one_trace(collector: Collector, job_id: str) -> None:
    """The request, the queue and the worker's stages are one trace, the caller's."""
    _, answer = collector.named("answer")
    service, request = collector.named("POST /v1/attributions")
    assert service == "das-api"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(answer)["das.job_id"] == job_id
    assert answer.parent_span_id == request.span_id
    spans = [collector.named(name) for name in ("queue", "scoring", "gradients", "writing")]
    assert {service for service, _ in spans} == {"das-worker"}
    assert {span.trace_id.hex() for _, span in spans} == {CALLERS.split("-")[1]}


def _scraped(machine: Machine) -> None:
    """Prometheus finds what the worker did at the API, once its rows have settled."""
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{machine.ports['9464']}/metrics", timeout=10
        ) as answer:
            text = answer.read().decode()
        found = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        if found.get(("das_stage_seconds_count", "whole")) == 1:
            break
        assert time.monotonic() < deadline, text
        time.sleep(0.5)
    assert found["das_job_events_total", "succeeded"] == 1
    assert found["das_claim_batch_size_count",] == 1
    assert found["das_workers", "ready"] == 1
    assert [found["das_part_up", part] for part in ("broker", "database", "index", "worker")] == [1] * 4
