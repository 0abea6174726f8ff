"""With `DAS_LOG_FORMAT=json` every line that `das serve` and its children write is one JSON object."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

DAS = Path(sys.executable).with_name("das")
START_S, STOP_S = 240, 60


def wait_until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_S
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def lines_of(text: str) -> list[dict[str, Any]]:
    """Every line as the object that it has to be."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert {"at", "level", "logger", "message"} <= set(line), line
    return lines


@pytest.fixture
def environment(tmp_path: Path, tiny_index: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DAS_LOG_FORMAT": "json",
        "DAS_DATA_DIR": str(tmp_path / "data"),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_PORT": "0",
        "DAS_TORCH_THREADS": "1",
    }


def test_every_line_of_the_service_and_its_children(
    environment: dict[str, str], tmp_path: Path, picture: bytes
) -> None:
    path = tmp_path / "log"
    with path.open("w") as log:
        service = subprocess.Popen([DAS, "serve"], env=environment, stdout=log, stderr=log)
    try:

        def written() -> list[dict[str, Any]]:
            # The last line may be half written.
            return lines_of(path.read_text().rpartition("\n")[0])

        told = wait_until(lambda: [line for line in written() if "address" in line])
        client = httpx.Client(base_url=told[0]["address"], timeout=START_S)
        wait_until(lambda: client.get("/readyz").json().get("ready"))
        asked = client.post("/v1/attributions", files={"image": ("p.png", picture)})
        asked.raise_for_status()
        answer = asked.headers["Location"]
        wait_until(lambda: client.get(answer).json()["state"] == "succeeded")
        # As the kernel does where memory is short: one that computes, and all of the worker.
        keeper = next(
            child
            for child in psutil.Process(service.pid).children()
            if any("worker" in part for part in child.cmdline())
        )
        for victim in (keeper.children(recursive=True)[-1], keeper):
            victim.kill()
            time.sleep(0.5)
        wait_until(lambda: sum("worker started with pid" in line["message"] for line in written()) == 2)
        service.send_signal(signal.SIGINT)
        assert service.wait(STOP_S) == 0
    finally:
        service.kill()
        service.wait()
    lines = lines_of(path.read_text())
    (posted,) = [line for line in lines if line.get("method") == "POST"]
    assert (posted["route"], posted["status"]) == ("/v1/attributions", 202)
    assert posted["request_id"] == asked.headers["X-Request-Id"]
    assert posted["milliseconds"] > 0
    assert any("SIGKILL" in line["message"] and line["level"] == "warning" for line in lines)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_refusal(environment: dict[str, str], tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    environment["DAS_INDEX_DIR"] = str(tmp_path / "empty")
    environment["DAS_REDIS_URL"] = "redis://127.0.0.1:1/0"
    refused = subprocess.run([DAS, command], env=environment, capture_output=True, text=True, timeout=START_S)
    assert refused.returncode == 2
    assert refused.stdout == ""
    *_, last = lines_of(refused.stderr)
    assert last["level"] == "critical"
    assert "there is no attribution index" in last["message"]
