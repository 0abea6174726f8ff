"""A real S3 server on loopback, spoken to by the real client."""

import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import fsspec
import pytest
from moto.server import ThreadedMotoServer

SECRET = "very-secret-of-the-test"


@dataclass
class S3:
    """A server that takes any key, unless told to ask for a known one."""

    server: ThreadedMotoServer

    @property
    def url(self) -> str:
        host, port = self.server.get_host_and_port()
        return f"http://{host}:{port}"

    def tell(self, what: str, body: str = "") -> None:
        """Speak to moto itself: `reset`, or `reset-auth` with how many further requests may have an unknown key."""
        request = urllib.request.Request(
            f"{self.url}/moto-api/{what}", body.encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        with urllib.request.urlopen(request):
            pass


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server that fsspec's client speaks to, with nothing on it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "das")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3 = S3(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    # Clients are kept by what they were made with, and the server isn't part of that.
    client = fsspec.get_filesystem_class("s3")
    client.clear_instance_cache()
    yield s3
    client.clear_instance_cache()
    s3.tell("reset-auth", "inf")
    s3.tell("reset")
    s3.server.stop()
