"""DAS_REDIS_URL: each way of getting it wrong has its sentence, and none tells the password."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from das.errors import SettingsError
from jobs.broker import Broker, answers, celery_broker_url, check_url, connect
from jobs.broker_program import choose_program
from jobs.errors import BrokerError
from jobs.queue import Doorbell
from jobs.redis_url import fault_of, for_celery
from jobs.settings import Settings
from tests import ports
from tests.ports import PortTakenError, on_a_free_port

PASSWORD = "s3cret-of-the-test"
DAS = Path(sys.executable).with_name("das")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants a password, may drop keys, and listens on a port and a socket; its address."""
    folder = tmp_path_factory.mktemp("redis")
    yield from _server(folder, "--requirepass", PASSWORD, "--maxmemory-policy", "allkeys-lru")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that wants no password; its address."""
    yield from _server(tmp_path_factory.mktemp("plain"))


def _server(folder: Path, *options: str) -> Iterator[str]:
    def start(port: int) -> tuple[int, "subprocess.Popen[bytes]"]:
        own = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(folder / "s"), "--save", ""]
        process = subprocess.Popen(
            [choose_program().path, *own, "--dir", str(folder), *options], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 90
        while not (folder / "s").exists():
            if process.poll() is not None:
                raise PortTakenError
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return port, process

    port, process = on_a_free_port(start)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_a_port_that_another_took_meanwhile_is_another_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = iter((taken.getsockname()[1], ports.free_port()))
        monkeypatch.setattr(ports, "free_port", lambda: next(found))
        server = _server(tmp_path)
        host, port = next(server).split(":")
        assert (host, int(port) == taken.getsockname()[1]) == ("127.0.0.1", False)
        assert answers(settings(tmp_path, f"redis://{host}:{port}/0"))
        server.close()


def settings(folder: Path, url: str) -> Settings:
    return Settings(_env_file=None, data_dir=folder, redis_url=url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("127.0.0.1:6379", "it has no scheme"),
        (f":{PASSWORD}@127.0.0.1", "it has no scheme"),
        ("sentinel://127.0.0.1:26379/0", "sentinel:// isn't supported"),
        (f"amqp://u:{PASSWORD}@h", "isn't amqp://"),
        (f"redis://:{PASSWORD}/more@127.0.0.1:6379/0", "percent code"),
        ("redis://127.0.0.1:99999/0", "can't be taken apart"),
        ("redis://127.0.0.1:6379/first", "the number of a database"),
        ("redis://127.0.0.1/0?socket_timeout=soon", "can't be taken apart"),
        ("unix://", "needs the path of a socket"),
    ],
)
def test_the_form(tmp_path: Path, url: str, sentence: str) -> None:
    assert sentence in (fault_of(url) or "")
    with pytest.raises(ValueError, match="redis_url") as refused:
        settings(tmp_path, url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:p%2F@h:6379/3",
        "rediss://u:p@h:6380/0?ssl_ca_certs=/ca.pem",
        "unix:///run/s",
        "unix://u:p@/run/s?db=2",
    ],
)
def test_good_forms_pass(url: str) -> None:
    assert fault_of(url) is None


@pytest.mark.parametrize("command", ["config", "serve", "worker"])
def test_a_bad_form_ends_every_command_with_a_sentence(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [DAS, command],
        env={
            **os.environ,
            "DAS_DATA_DIR": str(tmp_path),
            "DAS_REDIS_URL": f"sentinel://:{PASSWORD}@127.0.0.1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "DAS_REDIS_URL: " in done.stderr
    assert "sentinel:// isn't supported" in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://{guarded}/0", "the server wants a password"),
        ("redis://:wrong-{password}@{guarded}/0", "refuses the user or the password"),
        ("redis://nobody:{password}@{guarded}/0", "refuses the user or the password"),
        ("redis://:{password}@{plain}/0?protocol=2", "the server wants no password"),
        ("redis://:{password}@{guarded}/99", "no database of the number"),
    ],
    ids=["no-password", "wrong-password", "unknown-user", "needless-password", "database-99"],
)
def test_what_a_server_refuses(
    tmp_path: Path, guarded: str, plain: str, caplog: pytest.LogCaptureFixture, url: str, sentence: str
) -> None:
    used = settings(tmp_path, url.format(guarded=guarded, plain=plain, password=PASSWORD))
    for ask in (Broker(used).start, lambda: check_url(used)):
        with pytest.raises(SettingsError, match=sentence) as refused:
            ask()
        assert PASSWORD not in str(refused.value)
    assert not answers(used)
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("form", ["redis://:{password}@{address}/0", "unix://:{password}@{socket}?db=3"])
def test_the_right_password_over_a_port_and_a_socket(
    tmp_path: Path, guarded: str, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    probe = connect(settings(tmp_path, f"redis://:{PASSWORD}@{guarded}"))
    path = str(probe.config_get("unixsocket")["unixsocket"])
    probe.flushall()
    probe.close()
    used = settings(tmp_path, form.format(password=PASSWORD, address=guarded, socket=path))
    with caplog.at_level(logging.INFO, "jobs"):
        Broker(used).start()
    assert f"the broker is {choose_program()}" in caplog.text
    assert "maxmemory-policy allkeys-lru" in caplog.text
    bell = Doorbell(used)
    assert bell.ring("att_1")
    # Both clients mean the same database.
    assert bell.waiting() == 1
    bell.close()
    assert PASSWORD not in caplog.text


def test_tls_to_a_server_that_speaks_none(
    tmp_path: Path, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a server waits for the end of what it takes for a command, and we for its answer."""
    monkeypatch.setattr("jobs.broker.READY_SECONDS", 0.2)
    used = settings(tmp_path, f"rediss://:{PASSWORD}@{guarded}/0").model_copy(
        update={"broker_timeout_seconds": 0.5}
    )
    with pytest.raises(BrokerError, match="that it speaks TLS where the URL says rediss://") as refused:
        Broker(used).start()
    assert PASSWORD not in str(refused.value)


def test_one_that_isnt_there_may_come_for_a_worker_but_not_for_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.broker.READY_SECONDS", 0.2)
    used = settings(tmp_path, f"unix://{tmp_path}/nobody.sock")
    assert not check_url(used)
    with pytest.raises(BrokerError, match="DAS_REDIS_URL names doesn't answer"):
        Broker(used).start()


def test_celery_verifies_certificates_and_means_the_same_database() -> None:
    def connection(url: str) -> object:
        return Celery(broker=for_celery(url), set_as_current=False).connection()

    assert connection("rediss://h/0").ssl == {"ssl_cert_reqs": 2}  # type: ignore[attr-defined]
    assert connection("rediss://h/0?ssl_cert_reqs=none").ssl == {"ssl_cert_reqs": 0}  # type: ignore[attr-defined]
    assert for_celery("redis://u:p%40w@h:1?db=4") == "redis://u:p%40w@h:1/4"
    assert for_celery("unix:///run/a%20b?db=2") == "redis+socket:///run/a%20b?virtual_host=2"


def test_a_data_directory_with_odd_characters_has_a_broker(tmp_path: Path) -> None:
    used = Settings(_env_file=None, data_dir=tmp_path / "50% of #1?", index_dir=tmp_path)
    broker = Broker(used)
    broker.start()
    try:
        bell = Doorbell(used)
        assert bell.ring("att_1"), celery_broker_url(used)
        assert bell.waiting() == 1
        bell.close()
    finally:
        broker.stop()
