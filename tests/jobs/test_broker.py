"""The embedded broker: found, started, shared, restarted, and ended only by who started it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jobs.broker import (
    LONGEST_SOCKET_PATH,
    Broker,
    answers,
    broker_url,
    celery_broker_url,
    connect,
    running_server,
)
from jobs.broker_program import examined, found_programs
from jobs.errors import BrokerError
from jobs.queue import Doorbell
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]


PROGRAMS = {str(program): program.path for program in map(examined, found_programs())}


@pytest.fixture(autouse=True, params=PROGRAMS)
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every server that the product may choose on this machine, as the first on the PATH; its name and version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = PROGRAMS[request.param]
    (folder / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(folder))
    return str(request.param)


def until(condition: Callable[[], object], patience: float = 90.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_it_listens_on_a_private_socket_and_writes_a_log_of_commands(
    settings: Settings, broker: Broker, program: str
) -> None:
    assert str(running_server(settings)) == program
    socket = settings.data_dir / "broker.sock"
    assert broker_url(settings) == f"unix://{socket}"
    assert celery_broker_url(settings) == f"redis+socket://{socket}?virtual_host=0"
    assert oct(socket.stat().st_mode & 0o777) == "0o700"
    client = connect(settings)
    assert client.config_get("appendonly")["appendonly"] == "yes"
    assert client.config_get("port")["port"] == "0"
    client.close()


def test_before_anyone_started_it(settings: Settings) -> None:
    settings.prepare_data_dir()
    with pytest.raises(BrokerError, match="start `das serve` first, or set DAS_REDIS_URL"):
        broker_url(settings)
    assert not answers(settings)
    assert not Doorbell(settings).ring("att_0")
    assert Doorbell(settings).waiting() is None


def test_a_long_data_directory_gets_a_short_socket(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / ("long" * 20) / ("longer" * 10))
    for _ in range(2):
        broker = Broker(settings)
        broker.start()
        url = broker_url(settings)
        assert len(url.removeprefix("unix://")) <= LONGEST_SOCKET_PATH
        assert answers(settings)
        broker.stop()
    socket = Path(json.loads((settings.data_dir / "broker.json").read_text())["socket"])
    assert str(socket) == url.removeprefix("unix://"), "the same place again, where older workers look"
    assert socket.parent.stat().st_mode & 0o077 == 0
    socket.parent.rmdir()


def test_a_second_service_shares_it_and_leaves_it_running(settings: Settings, broker: Broker) -> None:
    # Another process, since a process never locks itself out.
    script = (
        "from jobs.broker import Broker, answers\n"
        "from jobs.settings import get_settings\n"
        "broker = Broker(get_settings())\n"
        "broker.start()\n"
        "print(broker.pid, answers(get_settings()))\n"
        "broker.stop()\n"
    )
    environment = {**os.environ, **settings.to_environment(), "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["None", "True"]
    assert answers(settings)
    assert broker.pid is not None


def test_a_socket_left_by_a_killed_server_is_no_hindrance(settings: Settings, broker: Broker) -> None:
    killed = broker.pid
    assert killed is not None
    client = connect(settings)
    client.rpush("das", "a bell")
    # The log is flushed every second; a kill before that may lose the bell, and the sweeper rings. A log rewritten
    # after the push holds it, and every server can do that.
    client.bgrewriteaof()
    until(lambda: not client.info()["aof_rewrite_in_progress"] and not client.info()["aof_rewrite_scheduled"])
    client.close()
    os.kill(killed, signal.SIGKILL)
    until(lambda: broker.pid not in (None, killed) and answers(settings))
    assert Doorbell(settings).waiting() == 1


def test_stopping_ends_the_server(settings: Settings, broker: Broker) -> None:
    pid = broker.pid
    assert pid is not None
    broker.stop()
    assert not psutil.pid_exists(pid)
    assert not answers(settings)
    broker.start()
    assert answers(settings)


def test_a_service_that_is_killed_leaves_no_server_behind(settings: Settings) -> None:
    script = (
        "import time\n"
        "from jobs.broker import Broker\n"
        "from jobs.settings import get_settings\n"
        "broker = Broker(get_settings())\n"
        "broker.start()\n"
        "print(broker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, **settings.to_environment(), "PYTHONPATH": str(ROOT)}
    service = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    assert service.stdout is not None
    server = int(service.stdout.readline())
    service.kill()
    service.wait()
    service.stdout.close()
    until(lambda: not psutil.pid_exists(server))


def test_a_server_that_cannot_start_is_quoted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.broker.READY_SECONDS", 1.0)
    (settings.prepare_data_dir() / "broker").write_text("in the way of its directory")
    with pytest.raises(BrokerError, match="the embedded broker doesn't answer within 1 s"):
        Broker(settings).start()


def test_bells_wait_in_the_broker(settings: Settings, broker: Broker) -> None:
    bell = Doorbell(settings)
    assert bell.connect()
    assert [bell.ring(f"att_{number}") for number in range(3)] == [True] * 3
    assert bell.waiting() == 3
    client = connect(settings)
    message = json.loads(client.lindex("das", 0))
    client.close()
    assert message["headers"]["task"] == "das.drain"
    assert "image" not in str(message)
    bell.close()


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    """No file of this process may grow, as on a disk without room."""
    script = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from jobs.broker import Broker; from jobs.settings import get_settings\n"
        "Broker(get_settings()).start()"
    )
    environment = {**os.environ, "DAS_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jobs.errors.BrokerError: where the broker is can't be written")
    assert "make room on its disk" in last
