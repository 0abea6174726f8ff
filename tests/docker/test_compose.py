"""The form of the compose file, and that what it names is there."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?(@sha256:[0-9a-f]{64})?")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|DATABASE_URL")


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


def test_the_duties_are_those_of_the_io_worker() -> None:
    api, worker = SERVICES["api"], SERVICES["io-worker"]
    assert (api["image"], api["build"]) == (worker["image"], worker["build"])
    assert worker["command"] == ["das", "io-worker"]
    assert {one["environment"]["DAS_DUTIES"] for one in (api, worker)} == {"io-worker"}
    # They share what the secrets of webhook endpoints are sealed with.
    assert "data:/data" in api["volumes"]
    assert "data:/data" in worker["volumes"]
    assert "profiles" not in worker
    *python, module = worker["healthcheck"]["test"]
    assert python == ["CMD", "python", "-m"]
    assert find_spec(module) is not None


def test_every_variable_of_ours_is_a_setting() -> None:
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            if variable.startswith("DAS_") and name != "caddy":
                setting = variable.removeprefix("DAS_").removesuffix("_FILE").lower()
                assert setting in Settings.model_fields, f"{name}: {variable}"


def test_every_variable_that_is_asked_for_stands_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text() + (ROOT / "docs" / "deployment.md").read_text()
    for variable in re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()):
        assert variable in example, variable


def test_prometheus_and_grafana_find_what_is_mounted() -> None:
    prometheus = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    told = {
        name: s["environment"]["DAS_METRICS_PORT"]
        for name, s in SERVICES.items()
        if "DAS_METRICS_PORT" in s.get("environment", {})
    }
    assert set(told) == {"api", "io-worker"}
    assert job["static_configs"] == [{"targets": [f"{name}:{port}" for name, port in told.items()]}]
    assert job["job_name"] == "das", "alerts name it"
    assert prometheus["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert (ROOT / "docker" / "prometheus" / "alerts.yml").exists()
    source = yaml.safe_load((ROOT / "docker" / "grafana" / "datasource.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
