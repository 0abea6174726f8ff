"""`das serve` as a process: it starts once, says why it can't, outlives its children, and ends whole."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest

from app.serve import _listen, tell_address
from jobs.settings import Settings

DAS = Path(sys.executable).with_name("das")
START_S, STOP_S = 240, 60


def das(*arguments, **environment):
    """Run a `das` command to its end."""
    return subprocess.run(
        [DAS, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=START_S
    )


def wait_until(what):
    deadline = time.monotonic() + START_S
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory, tiny_index):
    return {
        "DAS_DATA_DIR": str(tmp_path_factory.mktemp("serve") / "data"),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_PORT": "0",
        "DAS_TORCH_THREADS": "1",
    }


@pytest.fixture(scope="module")
def running(environment, tmp_path_factory):
    """A running service: its process and its address."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as log:
        process = subprocess.Popen([DAS, "serve"], env={**os.environ, **environment}, stdout=log, stderr=log)
    address = wait_until(lambda: re.search(r"Open (http://\S+)", path.read_text()))[1]
    yield process, address
    if process.poll() is None:
        process.kill()


def child(process, name):
    """The child that runs a program of this name."""
    for candidate in psutil.Process(process.pid).children():
        # One that was just killed is a zombie without a command line until its parent looks.
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if any(name in part for part in candidate.cmdline()):
                return candidate
    return None


def test_a_second_one_on_the_same_data_is_told_who_holds_it(running, environment):
    process, address = running
    second = das("serve", **environment)
    assert second.returncode == 2
    assert f"process {process.pid}" in " ".join(second.stderr.split())
    assert address in "".join(second.stderr.split())


def test_the_address_for_others_is_told_beside_this_machines(capsys):
    here = "http://127.0.0.1:8000"
    tell_address(Settings(_env_file=None))(here)
    assert capsys.readouterr().err == f"Open {here}  (Ctrl-C ends it)\n"
    tell_address(Settings(_env_file=None, public_url="https://das.example.org"))(here)
    assert capsys.readouterr().err == f"Open {here}, for others https://das.example.org  (Ctrl-C ends it)\n"


def test_a_port_in_use_is_a_sentence(running, environment, tmp_path):
    port = running[1].rpartition(":")[2]
    refused = das("serve", "--port", port, **{**environment, "DAS_DATA_DIR": str(tmp_path / "other")})
    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "beyond",
    [
        {"DAS_HOST": "0.0.0.0"},
        {"DAS_API_KEYS": "required"},
        {"DAS_PUBLIC_URL": "https://das.example.org"},
        {"DAS_ALLOWED_HOSTS": "localhost, studio"},
    ],
    ids=lambda beyond: next(iter(beyond)),
)
def test_beyond_this_machine_it_starts_only_once_there_is_a_key(environment, tmp_path, beyond):
    refused = das("serve", **{**environment, **beyond, "DAS_DATA_DIR": str(tmp_path / "data")})
    assert refused.returncode == 2
    said = " ".join(refused.stderr.split())
    assert "the service needs keys" in said
    assert "make one with `das keys create NAME`" in said
    assert "DAS_API_KEYS=off" in said
    assert "Traceback" not in said


def test_an_address_on_the_command_line_is_the_same(environment, tmp_path):
    refused = das("serve", "--host", "0.0.0.0", **{**environment, "DAS_DATA_DIR": str(tmp_path / "data")})
    assert refused.returncode == 2
    assert "the service needs keys" in " ".join(refused.stderr.split())


def test_with_a_key_it_starts_and_asks_for_it(start, environment, tmp_path):
    own = {**environment, "DAS_DATA_DIR": str(tmp_path / "data"), "DAS_HOST": "0.0.0.0"}
    made = das("keys", "create", "a pipeline", **own)
    secret = made.stdout.strip()
    process, log = start("--no-worker", DAS_HOST="0.0.0.0", DAS_LOG_LEVEL="debug")
    address = wait_until(lambda: re.search(r"Open (http://\S+)", log.read_text()))[1]
    refused = httpx.get(address + "/v1/attributions", timeout=START_S)
    assert (refused.status_code, refused.json()["code"]) == (401, "key-required")
    with_key = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(address + "/v1/attributions", headers=with_key, timeout=START_S).json()["items"] == []
    assert httpx.get(f"{address}/v1/attributions?key={secret}", timeout=START_S).status_code == 400
    # What is revoked on the command line ends in the running service within seconds.
    das("keys", "revoke", secret[:16], **own)
    began = time.monotonic()
    shut = {"headers": with_key, "timeout": START_S}
    wait_until(lambda: httpx.get(address + "/v1/attributions", **shut).status_code == 401)
    assert time.monotonic() - began < 30
    process.send_signal(signal.SIGINT)
    process.wait(STOP_S)
    assert secret[:16] in log.read_text()
    assert secret[17:] not in log.read_text()


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"host": "0.0.0.0"}, "listening on 0.0.0.0, beyond this machine, without keys"),
        ({"public_url": "https://das.example.org"}, "reached under a name beyond this machine without keys"),
        ({}, None),
    ],
)
def test_without_keys_it_warns_at_every_start(changes, warned, caplog):
    settings = Settings(_env_file=None, port=0, api_keys="off", **changes)
    with contextlib.closing(_listen(settings)) as listener:
        assert listener.getsockname()[0] == changes.get("host", "127.0.0.1")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.startswith(warned or "-") for line in lines] == ([True] if warned else [])


def test_without_an_index_it_says_how_to_make_one(environment, tmp_path):
    refused = das(
        "serve", "--index", str(tmp_path), **{**environment, "DAS_DATA_DIR": str(tmp_path / "data")}
    )
    assert refused.returncode == 2
    assert "das build" in refused.stderr


@pytest.mark.parametrize("name", ["unixsocket", "worker", "app"], ids=["broker", "worker", "api"])
def test_a_killed_child_is_started_again_and_the_others_go_on(running, name):
    process, address = running
    names = ("unixsocket", "worker", "app")
    first = {each: wait_until(lambda each=each: child(process, each)) for each in names}
    first[name].kill()
    again = wait_until(lambda: (found := child(process, name)) and found.pid != first[name].pid and found)
    assert again.is_running()
    for other in set(names) - {name}:
        assert child(process, other).pid == first[other].pid
    # While the API is started anew its requests wait in the socket: none is refused.
    assert httpx.get(address + "/healthz", timeout=START_S).status_code == 200


@pytest.mark.parametrize("length", [None, 5, 10**9], ids=["unannounced", "lying", "announced"])
def test_an_endless_upload_gets_its_413_on_the_wire(running, length):
    """Bytes past a too small Content-Length aren't the body's: those are a form that breaks off."""
    host, port = running[1].removeprefix("http://").split(":")
    head = f"POST /v1/attributions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n" if length is None else f"Content-Length: {length}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(head.encode())
        piece = b"A" * 65536
        for _ in range(1 if length else 600):
            wire.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
        status = wire.recv(65536).split(b"\r\n")[0]
    assert status.split()[1] == (b"400" if length == 5 else b"413")


def test_ctrl_c_ends_all_of_it(running):
    process, address = running
    wait_until(lambda: httpx.get(address + "/readyz", timeout=30).json()["ready"])
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_S) == 0
    _, alive = psutil.wait_procs(family, timeout=STOP_S)
    assert alive == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(address + "/healthz", timeout=START_S)


@pytest.fixture
def start(environment, tmp_path):
    """Start another service, on a data directory of its own; ended by force if the test didn't end it."""
    started = []

    def start(*arguments, **changes):
        path = tmp_path / "log"
        own = {**os.environ, **environment, "DAS_DATA_DIR": str(tmp_path / "data"), **changes}
        with path.open("w") as log:
            started.append(subprocess.Popen([DAS, "serve", *arguments], env=own, stdout=log, stderr=log))
        return started[-1], path

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_api_alone(start):
    process, log = start("--no-worker")
    address = wait_until(lambda: re.search(r"Open (http://\S+)", log.read_text()))[1]
    assert child(process, "worker") is None
    checks = httpx.get(address + "/readyz", timeout=START_S).json()["checks"]
    assert checks["broker"]["ok"]
    assert checks["worker"] == {
        "ok": False,
        "detail": "No worker gives a sign of life; start one with `das worker`.",
    }
    process.send_signal(signal.SIGHUP)
    assert process.wait(STOP_S) == 0


def test_a_killed_one_leaves_nothing_behind_and_the_next_starts(start):
    process, _ = start()
    family = wait_until(
        lambda: len(found := psutil.Process(process.pid).children(recursive=True)) >= 3 and found
    )
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=STOP_S)
    assert alive == []
    process, log = start("--no-worker")
    assert wait_until(lambda: "Open http" in log.read_text())


def test_a_second_signal_ends_it_at_once(start):
    process, log = start()
    family = wait_until(
        lambda: len(found := psutil.Process(process.pid).children(recursive=True)) >= 3 and found
    )
    # A worker that doesn't heed being told to end.
    wait_until(lambda: child(process, "worker")).suspend()
    api = wait_until(lambda: child(process, "app"))
    process.send_signal(signal.SIGINT)
    # It ends first; then the worker would have 8 s for the batch in hand.
    wait_until(lambda: not api.is_running() or api.status() == psutil.STATUS_ZOMBIE)
    process.send_signal(signal.SIGINT)
    assert process.wait(STOP_S) == 0
    assert "worker didn't end within" not in log.read_text()
    _, alive = psutil.wait_procs(family, timeout=STOP_S)
    assert alive == []


def test_a_place_that_cant_be_written_is_a_sentence(environment, tmp_path):
    (tmp_path / "file").touch()
    for name, place in (("DAS_DATA_DIR", tmp_path / "file"), ("DAS_BLOB_URL", tmp_path / "file" / "blobs")):
        own = {**environment, "DAS_DATA_DIR": str(tmp_path / "data"), name: str(place)}
        refused = das("serve", **own)
        assert refused.returncode == 2
        assert name in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("room", "said"), [(0, "can't be written"), (8192, "das.sqlite3 can't be used")], ids=["none", "little"]
)
def test_a_full_disk_is_a_sentence(environment, tmp_path, room, said):
    """Files of this process and its children may not grow beyond this, as on a disk without room."""
    script = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
    script += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from das.cli import main; main()"
    refused = subprocess.run(
        [sys.executable, "-c", script, "serve"],
        env={**os.environ, **environment, "DAS_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert refused.returncode == 2, refused.stderr
    assert said in " ".join(refused.stderr.split())
    assert "make room" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_settings_are_listed_for_people_and_machines(environment):
    told = json.loads(das("config", "--json", **environment, DAS_REDIS_URL="redis://:secret@host/0").stdout)
    assert told["DAS_PORT"]["value"] == 0
    assert told["DAS_PORT"]["default"] == 8000
    assert all(row["description"] for row in told.values())
    assert "secret" not in json.dumps(told["DAS_REDIS_URL"])
    assert "DAS_QUEUE_LIMIT" in das("config", **environment).stdout


def test_a_setting_that_cant_be_used_is_a_sentence(environment):
    refused = das("config", **{**environment, "DAS_PORT": "99999999"})
    assert refused.returncode == 2
    assert "DAS_PORT" in refused.stderr


def test_the_database_can_be_upgraded_by_itself(environment, tmp_path):
    done = das("db", "upgrade", **{**environment, "DAS_DATA_DIR": str(tmp_path / "fresh")})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fresh" / "das.sqlite3").is_file()
