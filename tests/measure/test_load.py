"""`das bench service` on a real service, and what it does about services that misbehave."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.images import normalise
from measure.load import throughput
from measure.load.clients import Load, Run
from measure.load.connection import Address, Connection, Response
from measure.load.figures import Memory, Requests
from measure.load.forms import bodies
from measure.load.throughput import Throughput, Trial
from measure.results.services import services_section

DAS = Path(sys.executable).with_name("das")
START_S = 240


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a `das serve` on the tiny index."""
    folder = tmp_path_factory.mktemp("served")
    environment = {
        **os.environ,
        "DAS_DATA_DIR": str(folder / "data"),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_TORCH_THREADS": "1",
        "DAS_PORT": "0",
        "DAS_QUEUE_LIMIT": "5",
        "NO_COLOR": "1",
    }
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([str(DAS), "serve"], env=environment, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            told = re.search(r"Open (http://\S+)", log.read_text())
            if told and httpx.get(told[1] + "/readyz", timeout=30).json()["ready"]:
                break
            time.sleep(0.2)
        yield told[1].rstrip("/"), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()


def test_a_small_load_on_a_real_service_has_no_fault(served: tuple[str, int], tmp_path: Path) -> None:
    url, pid = served
    words = [
        "--url",
        url,
        "--clients",
        "6",
        "--uploaders",
        "2",
        "--seconds",
        "4",
        "--polls",
        "10",
        "--streamers",
        "3",
    ]
    words += ["--api-pid", str(pid), "--out", str(tmp_path / "load.json"), "--json"]
    done = CliRunner().invoke(build_app(), ["bench", "service", *words])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["faults"] == {}
    assert json.loads((tmp_path / "load.json").read_text()) == told
    requests = told["requests"]
    kinds = {
        "question",
        "question, if it changed",
        "list of 20",
        "upload",
        "stream opened",
        "answer to its last event",
    }
    # On a busy machine no question may be finished in so short a time.
    assert kinds - {"answer to its last event"} <= set(requests) <= kinds
    assert set(requests["stream opened"]["statuses"]) <= {"200", "204"}
    # Nothing is polled twice where every answer is there before the next poll.
    assert set(requests["question, if it changed"]["statuses"]) <= {"200", "304"}
    assert set(requests["upload"]["statuses"]) <= {"202", "503"}
    assert requests["upload"]["statuses"]["202"] == told["questions"]["accepted"]
    assert 0 < told["questions"]["answered"] <= told["questions"]["accepted"]
    polls = sum(requests[kind]["count"] for kind in ("question", "question, if it changed", "list of 20"))
    assert polls <= 6 * (10 * 4 + 1)
    for one in requests.values():
        assert 0 < one["p50_ms"] <= one["p99_ms"] <= one["max_ms"]
    assert told["memory"]["api"]["peak_rss_mb"] >= told["memory"]["api"]["first_rss_mb"] > 50
    assert 0 < told["client_cpu_share"] < 1
    assert told["load_average_before"] >= 0


def test_two_services_are_asked_in_turn(served: tuple[str, int], tmp_path: Path) -> None:
    words = ["--url", served[0], "--other", served[0], "--seconds", "1", "--rounds", "3", "--note", "nothing"]
    words += ["--out", str(tmp_path / "services.json")]
    done = CliRunner().invoke(build_app(), ["bench", "services", *words])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "services.json").read_text())
    assert f"ratio {told['ratio']:.2f} (" in done.stdout
    assert told["rounds"] == 3
    assert 0 < told["ratio_low"] <= told["ratio"] <= told["ratio_high"]
    for who in (told["first"], told["second"]):
        assert who["answered"] >= 3
        assert 0 < who["p50_ms"] <= who["p95_ms"]
    page = services_section([told])
    assert f"| nothing | {told['first']['p50_ms']:.0f} ms |" in page
    assert services_section([]) == ""


def test_several_clients_are_compared_with_one_and_one_asks_beside_a_batch(
    served: tuple[str, int], tmp_path: Path
) -> None:
    words = ["--url", served[0], "--clients", "3", "--seconds", "1", "--rounds", "2", "--bulk", "5"]
    words += ["--note", "quiet", "--out", str(tmp_path / "throughput.json"), "--json"]
    done = CliRunner().invoke(build_app(), ["bench", "throughput", *words])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert json.loads((tmp_path / "throughput.json").read_text()) == told
    assert told["note"] == "quiet"
    assert told["machine"]["cores"] >= 1
    assert told["machine"]["memory_bytes"] > 1e8
    for who in (told["one"], told["several"], told["bulk"]["questions"]):
        assert who["answered"] > 0
        assert 0 < who["p50_ms"] <= who["p95_ms"]
        assert who["parts_ms"]["engine"] >= who["parts_ms"]["gradients"] > 0
        assert {"queue_wait", "claim", "decode", "write"} <= set(who["parts_ms"])
    # Rounds differ, so that a ratio of sums need not lie among theirs; each of them is positive.
    assert 0 < told["ratio_low"] <= told["ratio"] <= told["ratio_high"]
    assert told["bulk"]["pictures"] == 5
    assert 0 <= told["bulk"]["answered"] <= 5
    assert told["bulk"]["p95_ratio"] == pytest.approx(
        told["bulk"]["questions"]["p95_ms"] / told["one"]["p95_ms"], abs=0.002
    )


def test_a_service_without_room_for_the_batches_is_told_of(served: tuple[str, int]) -> None:
    trial = Trial(clients=1, seconds=0.1, rounds=1, bulk=1200)
    with pytest.raises(SettingsError, match="DAS_BATCH_ITEMS_LIMIT=2400"):
        asyncio.run(Throughput(trial, Address.of(served[0])).figures())
    # The first of its batches had been taken, and nobody waits for them now.
    listed = httpx.get(served[0] + "/v1/attribution-batches", params={"limit": 100}, timeout=30).json()[
        "items"
    ]
    big = [batch["counts"] for batch in listed if sum(batch["counts"].values()) == 100]
    assert big
    assert all(counts.get("cancelled", 0) > 0 for counts in big)
    assert not any(counts.get("queued", 0) for counts in big)


@pytest.mark.parametrize("full", ["POST", "GET"])
def test_a_service_that_never_answers_a_question_is_given_up(
    monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    monkeypatch.setattr(throughput, "_PATIENCE_S", 2.0)
    methods: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        methods.append(head.split()[0].decode())
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        await reader.readexactly(length)
        body = b'{"state": "queued", "id": "att_1"}'
        ready = b"/readyz" in head
        refused = not ready and methods[-1] == full
        status = b"503 Full\r\nRetry-After: 0" if refused else b"200 OK" if ready else b"202 Accepted"
        told = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        writer.write(told % (status, len(body), body))
        await writer.drain()
        writer.close()

    async def measured() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            await Throughput(Trial(clients=2, seconds=0.1, rounds=1), address).figures()

    with pytest.raises(SettingsError, match=r"^nothing was answered in 2\.1 s"):
        asyncio.run(measured())
    assert methods.count(full) > 2


def test_people_are_told_how_many_questions_were_refused() -> None:
    one = {"per_s": 4.0, "p50_ms": 60.0, "p95_ms": 90.0, "refused": 7}
    figures = {"one": one, "several": one, "clients": 2, "bulk": None}
    told = throughput.lines({**figures, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0})
    assert told[0] == "one client: 4.0 answers a second, p50 60 ms, p95 90 ms, 7 refused"


@pytest.mark.parametrize(
    "wrong",
    [{"clients": 0}, {"clients": 101}, {"seconds": 0.0}, {"rounds": 21}, {"bulk": -1}, {"bulk_seconds": 0.0}],
)
def test_senseless_trials_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=f"^{next(iter(wrong))} is"):
        Trial(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://192.0.2.7:8000", "only put on this machine"),
        ("http://example.org", "only put on this machine"),
        ("https://127.0.0.1:8000", "write http://127.0.0.1:PORT"),
        ("127.0.0.1:8000", "write http://127.0.0.1:PORT"),
        ("http://127.0.0.1:99999", "--url is"),
    ],
)
def test_another_machine_and_odd_addresses_are_refused(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        Address.of(url)


@pytest.mark.parametrize(
    "wrong", [{"clients": 0}, {"streamers": -1}, {"clients": 1001}, {"seconds": 601.0}, {"polls_per_s": -1.0}]
)
def test_a_load_is_bounded(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Load(**wrong)  # type: ignore[arg-type]


def test_where_nobody_listens_a_sentence_says_so() -> None:
    with pytest.raises(SettingsError, match="No service answers at"):
        asyncio.run(Run(Load(seconds=0.1), Address("127.0.0.1", 1)).figures())


def test_faults_are_all_but_successes_and_a_full_queue_that_says_when_to_come_again() -> None:
    requests = Requests()
    for status, headers in (
        (202, {}),
        (503, {"retry-after": "1"}),
        (429, {"retry-after": "1"}),
        (503, {}),
        (500, {}),
        (500, {}),
    ):
        requests.note("upload", Response(status, headers, b"", 0.25))
    requests.note_broken("list", ConnectionResetError("gone"))
    assert requests.faults == {
        "upload: 503 without Retry-After": 1,
        "upload: 500": 2,
        "list: ConnectionResetError: gone": 1,
    }
    told = requests.told(2.0)["upload"]
    assert told["statuses"] == {"202": 1, "429": 1, "500": 2, "503": 2}
    assert (told["count"], told["per_s"], told["p50_ms"]) == (6, 3.0, 250.0)


@asynccontextmanager
async def answering(*responses: bytes):  # type: ignore[no-untyped-def]
    """A listener that gives each connection these bytes, one after each request, and then hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for response in responses:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


def asked(responses: list[bytes], act: Callable[[Connection], object]) -> object:
    async def run() -> object:
        async with answering(*responses) as address:
            connection = Connection(address)
            try:
                return await act(connection)  # type: ignore[misc]
            finally:
                connection.close()

    return asyncio.run(run())


def test_a_chunked_answer_is_put_together_and_a_closed_connection_opened_again() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    )

    async def twice(connection: Connection) -> tuple[Response, Response]:
        first = await connection.request("GET", "/")
        await asyncio.sleep(0.1)  # the listener hangs up meanwhile
        return first, await connection.request("GET", "/")

    for one in asked([chunked], twice):  # type: ignore[attr-defined]
        assert (one.status, one.headers["etag"], one.body) == (200, "x", b"abc")


def test_an_answer_that_breaks_off_is_an_error() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"

    async def once(connection: Connection) -> Response:
        return await connection.request("GET", "/")

    with pytest.raises(Exception, match=r"peer closed|closed the connection"):
        asked([cut], once)


def test_events_are_put_together_from_their_parts_and_heartbeats_passed_over() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    text = b'retry: 2000\n\nevent: started\nid: 7\ndata: {}\n\n: still there\n\nevent: succeeded\ndata: {"a":1}\n\n'
    parts = [text[start : start + 11] for start in range(0, len(text), 11)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    async def follow(connection: Connection) -> list[tuple[str, bytes]]:
        stream = await connection.stream("/")
        assert stream.opened.status == 200
        return [event async for event in stream.events()]

    assert asked([head + body], follow) == [("started", b"{}"), ("succeeded", b'{"a":1}')]
    with pytest.raises(Exception, match=r"peer closed|closed the connection"):
        asked([head + body[:40]], follow)


def test_every_picture_is_another_and_a_seed_gives_them_again() -> None:
    forms = bodies(3)
    assert len(set(forms)) == len(forms) > 100
    assert forms == bodies(3)
    png = forms[0].split(b"\r\n\r\n", 1)[1].rpartition(b"\r\n--")[0]
    assert normalise(png).pixels.shape == (32, 32, 3)


def test_memory_is_told_with_children_and_survives_an_ended_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    memory = Memory({"us": os.getpid(), "child": child.pid})
    memory.sample()
    own = psutil.Process().memory_info().rss
    assert memory.peak["us"] >= 0.5 * own
    assert memory.first["child"] > 0
    child.kill()
    child.wait()
    memory.sample()
    assert memory.peak["child"] == memory.first["child"]
    assert set(memory.told()["us"]) == {"first_rss_mb", "peak_rss_mb"}
    assert np.isfinite(memory.told()["us"]["peak_rss_mb"])
