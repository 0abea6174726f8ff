"""After erasing, no file of a running service holds a byte of the questions: not the database and its log, not the
broker's append-only file, not what the processes logged."""

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from das.images import decode_png, encode_png

DAS = Path(sys.executable).with_name("das")
START_S, STOP_S = 240, 60


def wait_until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + START_S
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("erased")


@pytest.fixture(scope="module")
def served(data_dir: Path, tiny_index: Path) -> Iterator[httpx.Client]:
    """A service with everything in one folder, what it writes on standard error included, at the level `debug`."""
    environment = {
        **os.environ,
        "DAS_DATA_DIR": str(data_dir),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_PORT": "0",
        "DAS_TORCH_THREADS": "1",
        "DAS_LOG_LEVEL": "debug",
    }
    path = data_dir / "stderr.log"
    with path.open("w") as log:
        service = subprocess.Popen([DAS, "serve"], env=environment, stdout=log, stderr=log)
    try:
        address = wait_until(lambda: re.search(r"Open (http://\S+)", path.read_text()))[1]
        with httpx.Client(base_url=address, timeout=START_S) as client:
            wait_until(lambda: client.get("/readyz").json().get("ready"))
            yield client
        service.send_signal(signal.SIGINT)
        assert service.wait(STOP_S) == 0
    finally:
        service.kill()
        service.wait()


def found_in(data_dir: Path, secrets: list[bytes]) -> list[tuple[str, bytes]]:
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert {"das.sqlite3", "das.sqlite3-wal", "stderr.log", "broker.log"} <= {path.name for path in files}
    assert any("appendonly" in path.name for path in files)
    found = []
    for path in files:
        # The service runs on: its logs are rewritten under other names.
        with contextlib.suppress(FileNotFoundError):
            held = path.read_bytes()
            found += [(path.name, secret[:40]) for secret in secrets if secret in held]
    return found


def test_no_byte_of_any_question_is_left(served: httpx.Client, data_dir: Path) -> None:
    random = np.random.default_rng(11)
    secrets: list[bytes] = []
    asked: list[str] = []

    def a_question() -> tuple[bytes, dict[str, str]]:
        picture = encode_png(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        words = {name: f"{name} {random.integers(1 << 60):x} äß€" for name in ("prompt", "client_tag")}
        pixels = decode_png(picture).tobytes()
        secrets.extend([picture, pixels[:64], sha256(pixels).hexdigest().encode()])
        secrets.extend(word.encode() for word in words.values())
        secrets.extend(word.encode("ascii", "backslashreplace") for word in words.values())
        return picture, words

    for candidates in ("all", "2", "auto"):
        picture, words = a_question()
        key = f"a key {random.integers(1 << 60):x}"
        secrets.append(key.encode())
        response = served.post(
            "/v1/attributions",
            files={"image": ("p.png", picture)},
            data={**words, "candidates": candidates},
            headers={"Idempotency-Key": key},
        )
        assert response.status_code == 202, response.text
        asked.append(response.headers["Location"])
    picture, words = a_question()
    body = {**words, "image_base64": base64.b64encode(picture).decode()}
    secrets.append(body["image_base64"].encode())
    asked.append(served.post("/v1/attributions", json=body).headers["Location"])
    for address in asked:
        wait_until(lambda address=address: served.get(address).json()["state"] == "succeeded")
        served.get(address + "/image").raise_for_status()
    secrets.extend(served.get(address).json()["input"]["sha256"].encode() for address in asked)

    # What was decided about them and said of that goes with them.
    rules = [{"code": "any-share", "outcome": "block", "when": {"top.share": {"above": 0}}}]
    served.post("/v1/policies", json={"policy": {"policy": "publish", "rules": rules}}).raise_for_status()
    for address in asked:
        question = {"policy": "publish", "attribution": address.rpartition("/")[2]}
        decision = served.post("/v1/decisions", json=question).json()
        assert decision["outcome"] == "block"
        secrets.append(f"note {random.integers(1 << 60):x}".encode())
        review = {"outcome": "clear", "note": secrets[-1].decode()}
        served.post(decision["links"]["self"] + "/review", json=review).raise_for_status()

    # One that is erased while it waits or is computed, and two that are refused.
    picture, words = a_question()
    asked.append(
        served.post("/v1/attributions", files={"image": ("p.png", picture)}, data=words).headers["Location"]
    )
    picture, words = a_question()
    for data in ({**words, "top_k": "-1"}, {**words, "unheard of": "x"}):
        refused = served.post("/v1/attributions", files={"image": ("p.png", picture)}, data=data)
        assert 400 <= refused.status_code < 500
    assert served.get("/v1/attributions", params={"client_tag": words["client_tag"]}).json()["items"] == []

    assert found_in(data_dir, secrets[:1]), "the test looks in the right place"
    for address in asked:
        assert served.delete(address).status_code == 204
    # A worker may have held the last one, and the sweeper empties the log where a reader was in the way.
    wait_until(lambda: not found_in(data_dir, secrets))
