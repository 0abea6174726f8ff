"""A demo service in processes of its own, on a free port, with a small client: for the check and the screenshots."""

import contextlib
import http.client
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

import psutil

from das.errors import DasError
from demo.home import SAMPLES
from jobs.settings import Settings

START_S = 180.0
STOP_S = 20.0
ANSWER_S = 120.0
LONG_POLL_S = 30
LOG_LINES_SHOWN = 20


class DemoFailed(DasError):
    """The demo's service didn't start, or gave no answer."""


class RunningDemo:
    """`das serve` of the demo's index with a data directory that is thrown away; a context manager.

    `environment` is what the service's process inherits; settings in it don't count, `settings` does.
    """

    def __init__(self, settings: Settings, index: Path, environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="das-demo-")
        self._data = Path(self._folder.name) / "data"
        self._log: IO[bytes] = (Path(self._folder.name) / "log").open("wb")
        own = settings.model_copy(
            update={
                "data_dir": self._data,
                "index_dir": index,
                "samples_dir": SAMPLES,
                "host": "127.0.0.1",
                "port": 0,
                "database_url": None,
                "redis_url": None,
                "blob_url": None,
                "public_url": None,
            }
        )
        inherited = {name: value for name, value in environment.items() if not name.startswith("DAS_")}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from das.cli import main; main()", "serve"],
            env={**inherited, **own.to_environment()},
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.address = ""
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        deadline = self.began + START_S
        while not self.address:
            self._still_starting(deadline)
            self.address = self._announced_address()
        self._connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=ANSWER_S)
        while self.get("/readyz")[0] != http.client.OK:
            self._still_starting(deadline)

    def _announced_address(self) -> str:
        """The address that the service wrote into its lock file once it had the port; empty before."""
        try:
            return str(json.loads((self._data / "serve.lock").read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError):
            return ""

    def _still_starting(self, deadline: float) -> None:
        if self.process.poll() is not None:
            raise DemoFailed(f"the demo's service ended with code {self.process.returncode}:\n{self.log()}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"the demo's service wasn't ready after {START_S:.0f} s:\n{self.log()}")
        time.sleep(0.1)

    def log(self) -> str:
        """The last lines that the service logged."""
        self._log.flush()
        lines = Path(self._log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        return self._request("GET", path)

    def upload(self, name: str, image: bytes) -> dict[str, Any]:
        """Upload a picture as the page does; returns the question as the service took it."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + image + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, answer = self._request("POST", "/v1/attributions", body, headers)
        if status != http.client.ACCEPTED:
            raise DemoFailed(f"{name} was answered with {status}: {answer.decode(errors='replace')}")
        accepted: dict[str, Any] = json.loads(answer)
        return accepted

    def wait_for(self, attribution_id: str) -> dict[str, Any]:
        """The finished attribution, by long-polling."""
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            _, body = self.get(f"/v1/attributions/{attribution_id}?wait={LONG_POLL_S}")
            answer: dict[str, Any] = json.loads(body)
            if answer.get("state") not in ("queued", "running"):
                return answer
        raise DemoFailed(f"{attribution_id} has no answer after {ANSWER_S:.0f} s:\n{self.log()}")

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        assert self._connection is not None
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return response.status, response.read()

    def processes(self, name: str) -> list[psutil.Process]:
        """The service's processes by what they run, "api", "worker" or "broker", with all that they started."""
        marks = {"api": "app", "worker": "worker", "broker": "unixsocket"}
        found: list[psutil.Process] = []
        for child in psutil.Process(self.process.pid).children():
            # One that has just died has no command line any more.
            with contextlib.suppress(psutil.NoSuchProcess):
                line = child.cmdline()
                if marks[name] in line or (name == "broker" and any(marks[name] in part for part in line)):
                    found += [child, *child.children(recursive=True)]
        return found

    def resident_mb(self) -> tuple[float, float]:
        """Memory of the API with its helpers and of the worker's processes, in megabytes; shared pages count once."""
        sizes = dict.fromkeys(("api", "worker"), 0.0)
        for name in sizes:
            for process in self.processes(name):
                with contextlib.suppress(psutil.NoSuchProcess):
                    full = process.memory_full_info()
                    # Forks share pages. Their proportional parts (on Linux) add up to what there really is.
                    sizes[name] += getattr(full, "pss", full.rss) / 1e6
        return sizes["api"], sizes["worker"]

    def stop(self) -> None:
        """End the service as Ctrl-C does, and remove what it wrote."""
        if self._connection is not None:
            self._connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        self._folder.cleanup()
