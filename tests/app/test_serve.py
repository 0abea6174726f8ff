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

DAS = Path(sys.executable).with_name("das")
START_S, STOP_S = 240, 60


def das(*arguments, **environment):
    """Run a `das` command to its end."""
    return subprocess.run(
        [DAS, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=START_S
    )


def wait_until(what, seconds=START_S):
    deadline = time.monotonic() + seconds
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


def test_a_port_in_use_is_a_sentence(running, environment, tmp_path):
    port = running[1].rpartition(":")[2]
    refused = das("serve", "--port", port, **{**environment, "DAS_DATA_DIR": str(tmp_path / "other")})
    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_an_index_it_says_how_to_make_one(environment, tmp_path):
    refused = das(
        "serve", "--index", str(tmp_path), **{**environment, "DAS_DATA_DIR": str(tmp_path / "data")}
    )
    assert refused.returncode == 2
    assert "das build" in refused.stderr


@pytest.mark.parametrize("name", ["valkey-server", "worker"])
def test_a_killed_child_is_started_again(running, name):
    process, _ = running
    first = wait_until(lambda: child(process, name))
    first.kill()
    again = wait_until(lambda: (found := child(process, name)) and found.pid != first.pid and found)
    assert again.is_running()


@pytest.mark.parametrize("length", [None, 5, 10**9], ids=["unannounced", "lying", "announced"])
def test_an_endless_upload_gets_its_413_on_the_wire(running, length):
    """Bytes past a too small Content-Length aren't the body's: those are a form that breaks off."""
    host, port = running[1].removeprefix("http://").split(":")
    head = "POST /v1/attributions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n" if length is None else f"Content-Length: {length}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(head.encode())
        piece = b"A" * 65536
        for _ in range(1 if length else 600):
            wire.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if length is None else piece)
        status = wire.recv(65536).split(b"\r\n")[0]
    assert status.split()[1] == (b"400" if length == 5 else b"413")


@pytest.mark.parametrize("how", [signal.SIGINT])
def test_ctrl_c_ends_all_of_it(running, environment, how):
    process, address = running
    wait_until(lambda: httpx.get(address + "/readyz", timeout=30).json()["ready"])
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 4
    process.send_signal(how)
    assert process.wait(STOP_S) == 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(address + "/healthz")


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
